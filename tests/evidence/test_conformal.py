"""Conformal p-values."""

from __future__ import annotations

import numpy as np
import pytest

from ost_hf.evidence.conformal import conformal_p, least_p, small_up_to


def test_p_values_of_exchangeable_rows_are_uniform() -> None:
    generator = np.random.default_rng(1)
    p = np.concatenate([conformal_p(generator.random(50), generator.random(99)) for _ in range(200)])
    for level in (0.05, 0.1, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=0.02)


def test_equal_losses_count_against_being_corrupted() -> None:
    assert conformal_p([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0]).tolist() == [1.0, 0.75, 0.5, 0.25]


def test_few_calibration_rows_have_a_larger_small_p() -> None:
    assert conformal_p([2.0], np.ones(9)).item() == least_p(9) == small_up_to(9) == 0.1
    assert small_up_to(100) == 0.05
