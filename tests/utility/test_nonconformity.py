"""The two looks as one number."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from ost_hf.utility.conformal import conformal_p
from ost_hf.utility.nonconformity import nonconformity


@pytest.fixture
def numbers() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "late_loss": generator.gamma(2, size=50),
        "utility": generator.normal(size=50),
        "clean_late_loss": generator.gamma(1, size=30),
        "clean_utility": generator.normal(1, 0.1, size=30),
    }


@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 1.0])
def test_it_ranks_as_the_plain_formula_does(numbers, weight: float) -> None:
    of_rows, of_clean = nonconformity(**numbers, weight=weight)
    spread_of_root = statistics.pstdev(loss**0.5 for loss in numbers["clean_late_loss"])
    spread_of_utility = statistics.pstdev(numbers["clean_utility"])

    def plain(loss: float, utility: float) -> float:
        return (1 - weight) * loss**0.5 / spread_of_root - weight * utility / spread_of_utility

    rows = [plain(*pair) for pair in zip(numbers["late_loss"], numbers["utility"], strict=True)]
    clean = [plain(*pair) for pair in zip(numbers["clean_late_loss"], numbers["clean_utility"], strict=True)]
    np.testing.assert_array_equal(conformal_p(of_rows, of_clean), conformal_p(rows, clean))


def test_weight_zero_needs_no_utilities_of_clean_rows(numbers) -> None:
    numbers["clean_utility"] = None
    of_rows, of_clean = nonconformity(**numbers, weight=0)
    expected = conformal_p(numbers["late_loss"], numbers["clean_late_loss"])
    np.testing.assert_array_equal(conformal_p(of_rows, of_clean), expected)


def test_clean_rows_of_one_utility_are_no_division_by_zero(numbers) -> None:
    numbers["clean_utility"] = np.ones(30)
    with np.errstate(all="raise"):
        of_rows, of_clean = nonconformity(**numbers, weight=0.25)
    assert (conformal_p(of_rows, of_clean) == np.where(numbers["utility"] > 1, 1, 1 / 31)).all()


def test_p_values_of_clean_rows_are_uniform_with_every_weight() -> None:
    """Rows and anchors of one distribution, of dependent losses and utilities."""
    generator = np.random.default_rng(1)
    for weight in (0.0, 0.25, 1.0):
        found = []
        for _ in range(400):
            loss = generator.gamma(2, size=60)
            utility = generator.normal(size=60) - loss
            found.append(conformal_p(*nonconformity(loss[:20], utility[:20], loss[20:], utility[20:], weight)))
        for level in (0.05, 0.2, 0.5):
            assert (np.concatenate(found) <= level).mean() == pytest.approx(level, abs=0.03)
