"""Intervals over seeds, paired differences, shares of a gap; areas under curves, copies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ost_hf.study.statistics import (
    area_under_curve,
    extra_copies_kept,
    mean_interval,
    mean_recovered,
    paired_difference,
    recovered,
)


def test_the_interval_is_students() -> None:
    values = list(np.random.default_rng(0).normal(size=8))
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, 7, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.count == 8


def test_one_repetition_has_no_interval() -> None:
    assert (mean_interval([0.5]).low, mean_interval([0.5]).high) == (None, None)
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


def test_differences_are_paired_by_seed() -> None:
    first, second = {1: 0.5, 2: 0.9, 3: 0.1}, {2: 0.7, 1: 0.3, 4: 0.0}
    found = paired_difference(first, second)
    assert found is not None
    assert (found.mean, found.count) == (pytest.approx(0.2), 2)
    assert found.low == pytest.approx(0.2)  # the seeds differ in level, the differences do not
    assert paired_difference({1: 0.5}, {2: 0.5}) is None


def test_recovered_is_a_ratio_of_means_with_fiellers_interval() -> None:
    noise = np.random.default_rng(0).normal(scale=0.02, size=(3, 6))
    below = {seed: 0.2 + noise[0, seed] for seed in range(6)}
    above = {seed: 0.6 + noise[1, seed] for seed in range(6)}
    method = {seed: 0.5 + noise[2, seed] for seed in range(6)}
    found = recovered(method, below, above)
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    gains = np.asarray([method[seed] - below[seed] for seed in range(6)])
    gaps = np.asarray([above[seed] - below[seed] for seed in range(6)])
    assert found.mean == pytest.approx(gains.mean() / gaps.mean())
    # At its ends, and only there, the t test of gain - share * gap is just significant.
    for end in (found.low, found.high):
        assert stats.ttest_1samp(gains - end * gaps, 0).pvalue == pytest.approx(0.05)
    assert stats.ttest_1samp(gains - found.mean * gaps, 0).pvalue > 0.99
    assert found == recovered(method, below, above)


def test_a_gap_that_may_be_none_bounds_no_share() -> None:
    found = recovered({0: 0.5, 1: 0.6}, {0: 0.4, 1: 0.5}, {0: 0.9, 1: 0.4})
    assert found is not None
    assert (found.low, found.high) == (-np.inf, np.inf)
    alone = recovered({0: 0.5}, {0: 0.4}, {0: 0.6})
    assert alone is not None
    assert (alone.low, alone.high) == (None, None)


def test_the_mean_share_is_over_settings_and_its_interval_over_seeds() -> None:
    noise = np.random.default_rng(1).normal(scale=0.02, size=(2, 3, 8))
    settings = [
        tuple({seed: level + noise[place, kind, seed] for seed in range(8)} for kind, level in enumerate(levels))
        for place, levels in enumerate(((0.5, 0.2, 0.6), (0.7, 0.6, 0.8)))
    ]
    found = mean_recovered(settings)  # type: ignore[arg-type]
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    each = [recovered(*setting) for setting in settings]
    assert found.mean == pytest.approx(sum(share.mean for share in each if share) / 2)
    assert found.low < found.mean < found.high
    # One setting alone: the jackknife and Fieller's interval agree to first order.
    alone, fieller = mean_recovered(settings[:1]), recovered(*settings[0])  # type: ignore[arg-type]
    assert alone is not None
    assert fieller is not None
    assert [alone.low, alone.high] == [pytest.approx(fieller.low, abs=0.02), pytest.approx(fieller.high, abs=0.02)]
    assert mean_recovered([({0: 0.5}, {0: 0.4}, {0: 0.4})]) is None


def test_the_jackknife_by_hand() -> None:
    method, below, above = {0: 0.5, 1: 0.6, 2: 0.7}, dict.fromkeys(range(3), 0.4), {0: 0.6, 1: 0.8, 2: 0.8}
    found = mean_recovered([(method, below, above)])
    assert found is not None
    without = np.asarray([(0.2 + 0.3) / (0.4 + 0.4), (0.1 + 0.3) / (0.2 + 0.4), (0.1 + 0.2) / (0.2 + 0.4)])
    half = stats.t.ppf(0.975, 2) * np.sqrt(2 / 3 * ((without - without.mean()) ** 2).sum())
    assert (found.mean, found.high) == (pytest.approx(0.6), pytest.approx(0.6 + half))
    # Without the first seed there is no room left.
    alone = mean_recovered([({0: 0.5, 1: 0.4}, {0: 0.4, 1: 0.4}, {0: 0.6, 1: 0.4})])
    assert alone is not None
    assert (alone.low, alone.high) == (-np.inf, np.inf)


def test_without_room_nothing_is_recovered() -> None:
    assert recovered({0: 0.5}, {0: 0.5}, {0: 0.5}) is None
    assert recovered({0: 0.5}, {1: 0.5}, {0: 0.6}) is None


def test_area_under_curve_counts_pairs() -> None:
    generator = np.random.default_rng(3)
    values, positive = generator.integers(0, 6, 60).astype(float), generator.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in values[positive] for b in values[~positive]]
    assert area_under_curve(values, positive) == pytest.approx(np.mean(pairs))
    assert area_under_curve(np.array([1.0, np.nan]), np.array([True, False])) is None


def test_extra_copies_are_those_beyond_the_first_of_a_group() -> None:
    groups = [0, None, 0, 1, 0, 1, None]
    assert extra_copies_kept(groups, [0, 1, 3, 6]) == 0  # one of each group: whichever it is
    assert extra_copies_kept(groups, [4, 5]) == 0
    assert extra_copies_kept(groups, [0, 2, 3]) == pytest.approx(1 / 3)
    assert extra_copies_kept(groups, range(7)) == 1
    assert extra_copies_kept([None, 1, 2], [0]) is None
