"""A weight for each row: how likely it is both clean and of the anchors' kind.

    w = P(of the anchors' kind) * P(clean | p),        P(clean | p) = pi / f(p)

with the second factor of :mod:`ost_hf.evidence.two_groups`. A training that weighs the loss of each row by w learns
little from doubtful rows, in place of learning all of some of them and nothing of others.

Letters: N rows of the pool, V anchors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ost_hf.evidence.two_groups import probability_that_it_holds

Floats = NDArray[np.float64]


def row_weights(p: Floats, anchors: int, of_kind: Floats | None = None, pool_p: Floats | None = None) -> Floats:
    """The weight of each row of a pool.

    Args:
        p: ``[N]``, p-values of "this row is as clean as an anchor"; NaN for a row that has none.
        anchors: V, how many anchors the p-values were made with.
        of_kind: ``[N]``, probabilities of being of the anchors' kind; NaN for a row of which nothing tells. All 1 by
            default.
        pool_p: P-values that say what the pool is like: those of rows held out from the judges. By default all.

    Returns:
        ``[N]`` in [0, 1]. A row without one of the two numbers has weight 0: nothing says that it is clean, or of the
        kind.

    Raises:
        ValueError: If no row has a p-value.
    """
    seen = ~np.isnan(p)
    if not seen.any():
        raise ValueError("no row has a p-value, and weights are made of p-values")
    weight = np.zeros(len(p))
    known = p if pool_p is None else pool_p
    weight[seen] = probability_that_it_holds(p[seen], known[~np.isnan(known)], anchors)
    return weight if of_kind is None else weight * np.nan_to_num(of_kind, nan=0.0)
