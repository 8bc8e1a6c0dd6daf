"""The two looks as one number."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from ost_hf.evidence.conformal import conformal_p
from ost_hf.evidence.nonconformity import nonconformity


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


@pytest.mark.parametrize("utilities", [None, [], [0.13403201, 0.13403213], [0.5] * 30, [0.0] * 30])
def test_clean_utilities_that_are_missing_or_do_not_differ_are_refused_with_a_weight(numbers, utilities) -> None:
    numbers["clean_utility"] = utilities
    with pytest.raises(ValueError, match=r"with weight 0\.25 utilities of clean rows are needed that differ"):
        nonconformity(**numbers, weight=0.25)


def test_clean_late_losses_that_do_not_differ_are_no_division_by_zero(numbers) -> None:
    numbers["clean_late_loss"] = np.full(30, numbers["late_loss"].mean())
    with np.errstate(all="raise"):
        of_rows, of_clean = nonconformity(**numbers, weight=0.25)
    above = numbers["late_loss"] > numbers["late_loss"].mean()
    assert (conformal_p(of_rows, of_clean) == np.where(above, 1 / 31, 1)).all()


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_p_values_of_clean_rows_are_uniform_with_every_weight(weight: float) -> None:
    """Gradients of rows and anchors of one distribution: a utility is a mean cosine, of an anchor with the others."""
    generator = np.random.default_rng(1)
    found = []
    for _ in range(300):
        gradient = generator.normal(size=(60, 8)) + 0.5
        gradient /= np.linalg.norm(gradient, axis=1, keepdims=True)
        loss = np.exp(-gradient[:, 0]) + 0.1 * generator.random(60)
        rows, anchors = gradient[:20], gradient[20:]
        of_rows = (rows @ anchors.T).mean(1)
        of_anchors = ((anchors @ anchors.T).sum(1) - 1) / 39
        found.append(conformal_p(*nonconformity(loss[:20], of_rows, loss[20:], of_anchors, weight)))
    for level in (0.05, 0.2, 0.5):
        assert (np.concatenate(found) <= level).mean() == pytest.approx(level, abs=0.025)
