"""What the p-values of a whole pool say of it, without a label: is part of it corrupted, and is that part told apart?

Both hold the pool's N rows against its V anchors. Were all rows as clean, p-values would be close to uniform on
1 / (V + 1), 2 / (V + 1), ..., 1: few would be small, and their mean would be near its expectation (Mann and Whitney
1947). A mean below that says how much of the pool is not like the anchors, at the least:

    contamination = (expected mean - mean) / (expected mean - 1 / (V + 1))

for so many rows, each less like a clean one than all anchors, would move the mean so far. If more are corrupted and
some look clean, the mean is the same: the share of the corrupted rows that has small p-values is then at most

    power = (share of small ones - size (1 - contamination)) / contamination

with size the share of small ones that chance gives; and where the pool's share is below that, at most the pool's share.
Rows that are a little harder than the anchors, all of them, cannot be told by p-values from corruption that is hardly
told apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ost_hf.evidence.conformal import least_p, mean_by_chance, small_up_to

Floats = NDArray[np.float64]

# A false alarm costs more than a miss: of a clean pool it takes away the hard fifth, and what little corruption goes
# unseen has small p-values all the same.
DEVIATIONS = 3
# With less power many corrupted rows have p-values like clean ones. Chosen on development seeds.
_HIGH_POWER = 0.6


@dataclass(frozen=True)
class Evidence:
    """What was found; critical values are three standard deviations from what chance gives.

    ``level`` is up to where p-values count as small, ``size`` the share that is small by chance and ``share`` the share
    that is; ``mean`` is their mean and
    ``least_mean`` the least that so many anchors can give. ``contamination`` is the least share of the pool that is not
    like the anchors; ``power`` is an upper bound of the share of those that has small p-values: between 0 and 1, and 1
    where there is no contamination.
    """

    level: float
    size: float
    share: float
    critical_share: float
    mean: float
    critical_mean: float
    least_mean: float
    contamination: float
    power: float

    @property
    def says_nothing(self) -> bool:
        """Whether neither test could find anything, whatever the rows are: of one or two anchors, or very few rows."""
        return self.critical_share >= 1 and self.critical_mean <= self.least_mean

    @property
    def could_be_unseen(self) -> float:
        """About the share of corrupted rows that goes unseen as often as not, although each has the smallest p-value.

        Corruption that is less clearly told apart goes unseen in larger shares.
        """
        expected = (1 + self.least_mean) / 2
        by_share = (self.critical_share - self.size) / (1 - self.size)
        return min(1.0, by_share, (expected - self.critical_mean) / (expected - self.least_mean))

    @property
    def deviations(self) -> float:
        """How many standard deviations the pool is from what chance gives, by the test that says more; at least 0.

        Three are where corruption counts as found.
        """
        if self.says_nothing:
            return 0.0
        expected = (1 + self.least_mean) / 2
        by_share = (self.share - self.size) / (self.critical_share - self.size)
        return DEVIATIONS * max(0.0, by_share, (expected - self.mean) / (expected - self.critical_mean))

    @property
    def corrupted(self) -> bool:
        """Whether part of the pool is not as clean as the anchors, by one test or the other."""
        return self.share > self.critical_share or self.mean < self.critical_mean

    @property
    def hardly_told_apart(self) -> bool:
        """Whether many corrupted rows have p-values like clean ones, or all rows are a little less like anchors."""
        return self.corrupted and self.power < _HIGH_POWER


def contamination_evidence(pool_p: Floats, anchors: int) -> Evidence:
    """Evidence of the p-values of a pool.

    Args:
        pool_p: ``[N]``, of the whole pool; NaN where a row has none.
        anchors: V, how many they were made with. With one or two nothing is ever found.

    Raises:
        ValueError: Without any p-value, or without anchors.
    """
    seen = pool_p[~np.isnan(pool_p)]
    rows = len(seen)
    if not rows or anchors < 1:
        raise ValueError(f"evidence needs p-values of at least one row and one anchor, got {rows} and {anchors}")
    level, least = small_up_to(anchors), least_p(anchors)
    # What share of small ones chance gives: p-values are whole multiples of the smallest. The 1e-9 is for rounding.
    size = math.floor(level / least + 1e-9) * least
    share, mean = float((seen <= level).mean()), float(seen.mean())
    # Anchors and rows are both samples. Anchors decide where the level lies: what share of all clean rows is below it
    # has the Beta distribution of an order statistic; the pool's share is binomial about that.
    variance_of_share = size * (1 - size) * (rows + anchors + 1) / (rows * (anchors + 2))
    critical_share = size + DEVIATIONS * math.sqrt(variance_of_share)
    expected, deviation = mean_by_chance(rows, anchors)
    contamination = max(0.0, (expected - mean) / (expected - least))
    power = (share - size * (1 - contamination)) / contamination if contamination else 1.0
    return Evidence(
        level=level,
        size=size,
        share=share,
        critical_share=critical_share,
        mean=mean,
        critical_mean=expected - DEVIATIONS * deviation,
        least_mean=least,
        contamination=contamination,
        power=min(1.0, max(share, power)),
    )
