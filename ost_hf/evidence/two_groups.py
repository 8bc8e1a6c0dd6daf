"""How likely a row keeps a hypothesis, given the p-values of the whole pool (Efron et al. 2001).

Rows that keep it have uniform p-values, the others mostly small ones. With f the density of the pool's p-values and
pi the share of rows that keep the hypothesis,

    P(it holds | p) = pi / f(p)

f is estimated as the decreasing density of highest likelihood (Grenander 1956): the slopes of the least concave
function above the distribution function. pi is what f comes to at large p-values, where only rows that keep the
hypothesis are left (Storey 2002): the share of p-values above one half, times two.

Letters: N rows of the pool, M rows that are asked about, V anchors, L levels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def share_that_keeps(p: Floats) -> float:
    """pi: the estimated share of rows that keep the hypothesis, at most 1.

    Args:
        p: ``[N]`` p-values, at least one, without NaN.
    """
    return min(1.0, 2 * float((p > 0.5).mean()))


def probability_that_it_holds(p: Floats, pool_p: Floats, anchors: int) -> Floats:
    """P(the hypothesis holds) of rows, never falling as p rises.

    Args:
        p: Those of the rows that are asked about, ``[M]``.
        pool_p: Those of the whole pool, these rows included: ``[N]``, at least one, without NaN.
        anchors: V, how many they were made with: they are multiples of 1 / (V + 1).

    Returns:
        ``[M]``, between 0 and 1.
    """
    levels = anchors + 1
    of_rows, of_pool = (np.clip(np.rint(each * levels).astype(np.int64) - 1, 0, levels - 1) for each in (p, pool_p))
    density_L = _decreasing(np.bincount(of_pool, minlength=levels) / len(pool_p) * levels)
    return np.minimum(1.0, share_that_keeps(pool_p) / np.maximum(density_L, np.finfo(np.float64).tiny))[of_rows]


def _decreasing(values_L: Floats) -> Floats:
    """The decreasing sequence nearest to another in squares: neighbours that rise share their mean."""
    means: list[float] = []
    counts: list[int] = []
    for value in values_L.tolist():
        means.append(value)
        counts.append(1)
        while len(means) > 1 and means[-2] <= means[-1]:
            count = counts[-2] + counts[-1]
            means[-2:] = [(means[-2] * counts[-2] + means[-1] * counts[-1]) / count]
            counts[-2:] = [count]
    return np.repeat(means, counts)
