"""What the p-values of a whole pool say of it, without a label: is part of it corrupted, and is that part told apart?

Both compare the pool with its M anchors, N rows with them. Were all rows as clean, their p-values would be close to
uniform: a share of about ``level`` would be small, and the mean close to its expectation (a Mann-Whitney test).
If more are, the mean says how many rows are not like the anchors: at least so many that, each above all anchors,
they would move it so far. What share of so many have small p-values says how well they are told apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ost_hf.utility.conformal import small_p, smallest_p

Floats = NDArray[np.float64]

# Where a smaller share of the corrupted rows is told apart, many of them look clean. Chosen on development seeds.
_WELL_TOLD_APART = 0.6


@dataclass(frozen=True)
class Evidence:
    """What was found.

    ``level`` is up to where p-values count as small, ``share`` that of the pool's which are, and ``chance`` what share
    and ``lowest_mean`` what ``mean`` of p-values chance gives at most and at least (two standard deviations).
    """

    level: float
    share: float
    chance: float
    mean: float
    lowest_mean: float
    told_apart: float

    @property
    def corrupted(self) -> bool:
        """Whether part of the pool is not as clean as the anchors, by one test or the other."""
        return self.share > self.chance or self.mean < self.lowest_mean

    @property
    def hardly_told_apart(self) -> bool:
        """Whether many corrupted rows have p-values like clean ones."""
        return self.corrupted and self.told_apart < _WELL_TOLD_APART


def evidence(pool_p: Floats, calibration: int) -> Evidence:
    """Evidence of the p-values of a pool.

    Args:
        pool_p: ``[N]``, of the whole pool; NaN where a row has none.
        calibration: M, how many anchors they were made with.

    Returns:
        With ``told_apart`` between 0 and 1, the least share of the corrupted rows that has small p-values; 1 where the
        mean says nothing of corruption.
    """
    seen = pool_p[~np.isnan(pool_p)]
    anchors, rows = max(1, calibration), len(seen)
    level, share, mean = small_p(calibration), float((seen <= small_p(calibration)).mean()), float(seen.mean())
    # Anchors and rows are both samples: so many of the former decide where the level lies.
    chance = level + 2 * np.sqrt(level * (1 - level) * (1 / anchors + 1 / rows))
    expected = (1 + smallest_p(anchors)) / 2
    lowest_mean = expected - 2 * np.sqrt((1 / anchors + 1 / rows) / 12)
    unlike = (expected - mean) / (expected - smallest_p(anchors))
    told_apart = float(np.clip((share - level * (1 - unlike)) / unlike, 0, 1)) if unlike > 0 else 1.0
    return Evidence(level, share, float(chance), mean, float(lowest_mean), told_apart)
