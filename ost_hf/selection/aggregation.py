"""From one utility per anchor group to one order of the candidates.

* ``mean``         mean over groups: small groups count as much as large ones
* ``min``          the worst group: what helps everywhere (worst case)
* ``max``          the best group: what helps anywhere (LESS, 2402.04333)
* ``vote``         how many groups rank the candidate in their upper half (ICONS, 2501.00654); ties, and there are many,
                   are broken by the mean of its ranks in the groups
* ``round_robin``  the groups take turns, each taking the best candidate that is left (2602.14696)

Groups can be single anchors. Utilities of different groups need not be of one scale for ``vote`` and
``round_robin``; for the others they are compared as they are.

Letters: N candidates, G groups.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ost_hf.evidence.rank_correlation import ranks

Array = NDArray[np.float64]


def aggregate(utility_NG: Array, how: str) -> Array:
    """One number for each candidate, higher is better.

    Args:
        utility_NG: Utilities, without missing values.
        how: One of ``AGGREGATIONS``.

    Returns:
        ``[N]``. For ``round_robin`` minus the turn in which the candidate is taken.

    Raises:
        ValueError: For an unknown name, no group, or missing values.
    """
    if how not in AGGREGATIONS:
        raise ValueError(f"aggregation must be one of {', '.join(AGGREGATIONS)}, got {how!r}")
    if utility_NG.ndim != 2 or utility_NG.shape[1] == 0:
        raise ValueError(f"utilities must be [candidates, groups] with a group at least, got {utility_NG.shape}")
    if np.isnan(utility_NG).any():
        raise ValueError("utilities of groups must not be missing")
    return AGGREGATIONS[how](utility_NG)


def _vote(utility_NG: Array) -> Array:
    rank_NG = np.stack([ranks(column) for column in utility_NG.T], axis=1)
    count = len(utility_NG)
    votes = (rank_NG > (count - 1) / 2).sum(1)
    # Below one vote, whatever the ranks.
    return votes + rank_NG.mean(1) / max(1, count)


def _round_robin(utility_NG: Array) -> Array:
    orders = [iter(np.argsort(-column, kind="stable").tolist()) for column in utility_NG.T]
    turn = np.full(len(utility_NG), np.nan)
    taken = 0
    while taken < len(utility_NG):
        for order in orders:
            choice = next((row for row in order if np.isnan(turn[row])), None)
            if choice is not None:
                turn[choice] = taken
                taken += 1
    return -turn


AGGREGATIONS: dict[str, Callable[[Array], Array]] = {
    "mean": lambda utility_NG: utility_NG.mean(1),
    "min": lambda utility_NG: utility_NG.min(1),
    "max": lambda utility_NG: utility_NG.max(1),
    "vote": _vote,
    "round_robin": _round_robin,
}
