"""What a pool's p-values say of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ost_hf.evidence.conformal import conformal_p
from ost_hf.evidence.contamination import contamination_evidence

ANCHORS = 999


def grid(rows: int, up_to: float = 1.0) -> np.ndarray:
    """P-values at equal distances up to a number: uniform ones without chance."""
    return np.ceil(np.linspace(0, up_to, rows + 1)[1:] * (ANCHORS + 1)) / (ANCHORS + 1)


@pytest.mark.parametrize("anchors", [3, 10, 30, 100])
def test_no_corruption_is_seldom_found_where_there_is_none(anchors: int) -> None:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(400):
        p = conformal_p(generator.normal(size=1000), generator.normal(size=anchors))
        found.append(contamination_evidence(p, anchors).corrupted)
    # Two one-sided tests at three standard deviations, of one sample of anchors; a share's tail is the longer one.
    assert np.mean(found) < 0.03


@pytest.mark.parametrize("corrupted", [100, 500, 900])
def test_corrupted_rows_above_all_anchors_are_counted_and_told_apart(corrupted: int) -> None:
    p = np.concatenate([np.full(corrupted, 1 / (ANCHORS + 1)), grid(1000 - corrupted)])
    found = contamination_evidence(p, ANCHORS)
    assert found.corrupted
    assert found.contamination == pytest.approx(corrupted / 1000, abs=0.002)
    assert found.power == pytest.approx(1, abs=0.02)
    assert not found.hardly_told_apart


def test_contamination_is_at_least_and_power_at_most_what_is_found() -> None:
    """Half of the rows have p-values that are uniform up to a half: their mean is a quarter, a tenth are small."""
    p = np.concatenate([grid(500, up_to=0.5), grid(500)])
    found = contamination_evidence(p, ANCHORS)
    assert found.share == pytest.approx((0.1 + 0.05) / 2, abs=0.002)
    assert found.mean == pytest.approx((0.25 + 0.5) / 2, abs=0.002)
    assert found.contamination == pytest.approx(0.25, abs=0.005)  # of the true half
    assert found.power == pytest.approx((0.075 - 0.05 * 0.75) / 0.25, abs=0.01)  # of the true tenth
    assert found.corrupted
    assert found.hardly_told_apart


def test_less_power_than_six_tenths_is_hardly_told_apart_and_only_where_something_is_corrupted() -> None:
    found = contamination_evidence(np.concatenate([grid(500, up_to=0.5), grid(500)]), ANCHORS)
    assert not replace(found, power=0.6).hardly_told_apart
    assert replace(found, power=0.59).hardly_told_apart
    assert not replace(found, power=0.59, share=0.0, mean=0.5).hardly_told_apart


def test_corruption_that_is_hardly_told_apart_shows_in_the_mean_alone() -> None:
    """No row has a small p-value, but all are nearer to one than chance puts them."""
    found = contamination_evidence(np.random.default_rng(2).uniform(0.1, 0.7, 1000), 100)
    assert found.share == 0
    assert found.mean < found.critical_mean
    assert found.corrupted
    assert found.power == 0


@pytest.mark.parametrize("anchors", [2, 10, 60])
def test_the_critical_mean_is_three_standard_deviations_of_the_mean_below(anchors: int) -> None:
    generator = np.random.default_rng(3)
    p = [conformal_p(generator.normal(size=80), generator.normal(size=anchors)) for _ in range(4000)]
    means = np.asarray([one.mean() for one in p])
    expected = means.mean() - 3 * means.std()
    assert contamination_evidence(p[0], anchors).critical_mean == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("anchors", "size"), [(4, 1 / 5), (10, 1 / 11), (30, 1 / 31), (100, 5 / 101)])
def test_the_critical_share_is_three_standard_deviations_of_the_share_above(anchors: int, size: float) -> None:
    generator = np.random.default_rng(4)
    found = [
        contamination_evidence(conformal_p(generator.normal(size=500), generator.normal(size=anchors)), anchors)
        for _ in range(8000)
    ]
    shares = np.asarray([one.share for one in found])
    assert shares.mean() == pytest.approx(size, rel=0.03)
    assert found[0].critical_share - size == pytest.approx(3 * shares.std(), rel=0.03)


@pytest.mark.parametrize(("anchors", "says_nothing"), [(1, True), (2, True), (3, False), (100, False)])
def test_with_two_anchors_nothing_could_be_found(anchors: int, says_nothing: bool) -> None:
    worst = contamination_evidence(np.full(10_000, 1 / (anchors + 1)), anchors)
    assert worst.says_nothing is says_nothing
    assert worst.corrupted is not says_nothing


def test_one_row_says_nothing_whatever_the_anchors() -> None:
    assert contamination_evidence(np.array([1 / 6]), 5).says_nothing


def test_rows_without_a_p_value_say_nothing_and_no_p_values_are_refused() -> None:
    p = grid(1000, up_to=0.3)
    assert contamination_evidence(np.concatenate([p, np.full(500, np.nan)]), ANCHORS) == contamination_evidence(
        p, ANCHORS
    )
    with pytest.raises(ValueError, match="at least one row and one anchor, got 0 and 999"):
        contamination_evidence(np.full(3, np.nan), ANCHORS)
    with pytest.raises(ValueError, match="got 1000 and 0"):
        contamination_evidence(p, 0)


def test_power_is_an_upper_bound_where_fewer_p_values_are_small_than_chance_gives() -> None:
    """Three in a hundred have small ones: as much as that may be corrupted rows, all of them told apart."""
    p = np.where(np.arange(1000) < 30, 1 / 101, 0.3)
    assert contamination_evidence(p, 100).power == pytest.approx(0.03)


@pytest.mark.parametrize(("rows", "anchors"), [(400, 50), (3000, 100)])
def test_more_corruption_than_could_be_unseen_is_found(rows: int, anchors: int) -> None:
    """Uniform p-values on the levels that there are, and a share of the smallest one in place of some."""

    def with_share(share: float) -> np.ndarray:
        corrupted = round(share * rows)
        levels = np.ceil(np.linspace(0, 1, rows - corrupted + 1)[1:] * (anchors + 1)) / (anchors + 1)
        return np.concatenate([np.full(corrupted, 1 / (anchors + 1)), levels])

    unseen = contamination_evidence(with_share(0), anchors).could_be_unseen
    assert 0.02 < unseen < 0.15
    assert contamination_evidence(with_share(1.1 * unseen), anchors).corrupted
    assert not contamination_evidence(with_share(0.9 * unseen), anchors).corrupted


@pytest.mark.parametrize("mean", [0.5, 0.45, 0.3])
def test_deviations_are_three_where_corruption_counts_as_found(mean: float) -> None:
    """By hand: the mean p-value of V anchors and N rows has variance V (V + N + 1) / (12 N (V + 1)^2)."""
    p = grid(1000, up_to=1.0) * mean / 0.5
    found = contamination_evidence(p, ANCHORS)
    deviation = np.sqrt(ANCHORS * (ANCHORS + 1001) / (12 * 1000 * (ANCHORS + 1) ** 2))
    by_mean = ((1 + 1 / (ANCHORS + 1)) / 2 - p.mean()) / deviation
    assert found.deviations >= max(0.0, by_mean) - 1e-9
    assert (found.deviations > 3) == found.corrupted
    assert replace(found, share=found.critical_share, mean=1.0).deviations == pytest.approx(3)
    assert replace(found, share=0.0, mean=1.0).deviations == 0


def test_where_nothing_could_be_found_a_pool_is_no_deviation_from_chance() -> None:
    assert contamination_evidence(np.full(100, 0.5), anchors=1).deviations == 0
