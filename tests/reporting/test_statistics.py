"""Intervals over seeds, paired differences, shares of a gap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ost_hf.reporting.statistics import mean_interval, paired_difference, recovered


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


def test_recovered_is_a_ratio_of_means_and_the_same_every_time() -> None:
    below = {seed: 0.2 + 0.01 * seed for seed in range(6)}
    above = {seed: value + 0.4 for seed, value in below.items()}
    method = {seed: value + 0.3 + 0.02 * (-1) ** seed for seed, value in below.items()}
    found = recovered(method, below, above)
    assert found is not None
    assert found.mean == pytest.approx(0.75)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.75 < found.high
    assert found == recovered(method, below, above)


def test_without_room_nothing_is_recovered() -> None:
    assert recovered({0: 0.5}, {0: 0.5}, {0: 0.5}) is None
    assert recovered({0: 0.5}, {1: 0.5}, {0: 0.6}) is None
