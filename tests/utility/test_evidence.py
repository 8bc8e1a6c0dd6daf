"""Evidence of a pool's p-values."""

from __future__ import annotations

import numpy as np
import pytest

from ost_hf.utility.conformal import conformal_p
from ost_hf.utility.evidence import evidence


def p_values(generator: np.random.Generator, anchors: int, corrupted: int, shift: float) -> np.ndarray:
    """Of 1000 normal losses, those of corrupted rows higher by ``shift`` standard deviations."""
    losses = generator.normal(size=1000)
    losses[:corrupted] += shift
    return conformal_p(losses, generator.normal(size=anchors))


@pytest.mark.parametrize("anchors", [10, 30, 100])
def test_no_corruption_is_seldom_found_where_there_is_none(anchors: int) -> None:
    generator = np.random.default_rng(0)
    found = [evidence(p_values(generator, anchors, 0, 0), anchors).corrupted for _ in range(400)]
    # Two one-sided tests at two standard deviations, of one sample of anchors.
    assert np.mean(found) < 0.1


@pytest.mark.parametrize(("shift", "low", "high"), [(10, 0.95, 1.0), (2, 0.6, 0.95), (0.8, 0.1, 0.6)])
def test_told_apart_says_what_share_of_the_corrupted_rows_has_small_p_values(shift, low: float, high: float) -> None:
    generator = np.random.default_rng(1)
    all_found = [evidence(p_values(generator, 100, 500, shift), 100) for _ in range(50)]
    assert all(found.corrupted for found in all_found)
    assert low <= np.mean([found.told_apart for found in all_found]) <= high


def test_corruption_that_is_hardly_told_apart_shows_in_the_mean_alone() -> None:
    """No row has a small p-value, but all are nearer to it than chance puts them."""
    found = evidence(np.random.default_rng(2).uniform(0.1, 0.7, 1000), 100)
    assert found.share == 0
    assert found.mean < found.lowest_mean
    assert found.corrupted
    assert found.told_apart == 0


def test_the_mean_is_held_against_that_of_uniform_p_values_of_so_few_anchors() -> None:
    p = np.arange(1, 12) / 11
    assert evidence(np.tile(p, 50), 10).mean == pytest.approx(6 / 11)
    lowest = 6 / 11 - 2 * np.sqrt((1 / 10 + 1 / 550) / 12)
    assert evidence(np.tile(p, 50), 10).lowest_mean == pytest.approx(lowest)


def test_rows_without_a_p_value_say_nothing() -> None:
    p = p_values(np.random.default_rng(3), 100, 100, 3)
    with_gaps = np.concatenate([p, np.full(500, np.nan)])
    assert evidence(with_gaps, 100) == evidence(p, 100)
