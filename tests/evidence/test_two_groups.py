"""How likely a hypothesis holds of a row, given all p-values."""

from __future__ import annotations

import numpy as np
import pytest

from ost_hf.evidence.two_groups import probability_that_it_holds, share_that_keeps


def pool(generator: np.random.Generator, rows: int, keeps: float, anchors: int) -> tuple[np.ndarray, np.ndarray]:
    """p-values of a pool of which a share keeps the hypothesis; the others' are mostly small."""
    holds = generator.random(rows) < keeps
    uniform = np.where(holds, generator.random(rows), generator.beta(0.2, 4, rows))
    return (1 + np.floor(uniform * (anchors + 1)).clip(max=anchors)) / (anchors + 1), holds


def slow_probability(p: np.ndarray, anchors: int) -> np.ndarray:
    """Pi over the slope of the least concave function above the distribution function, by all chords."""
    levels = anchors + 1
    heights = [np.mean(np.rint(p * levels) <= level) for level in range(levels + 1)]
    majorant = list(heights)
    for left in range(levels + 1):
        for right in range(left + 1, levels + 1):
            for level in range(left, right + 1):
                chord = heights[left] + (heights[right] - heights[left]) * (level - left) / (right - left)
                majorant[level] = max(majorant[level], chord)
    keeps = min(1.0, 2 * np.mean(p > 0.5))
    slopes = [(majorant[level + 1] - majorant[level]) * levels for level in range(levels)]
    return np.array([min(1.0, keeps / slopes[round(value * levels) - 1]) for value in p])


def test_probabilities_are_those_of_the_definition() -> None:
    p, _ = pool(np.random.default_rng(0), 200, 0.6, 12)
    assert probability_that_it_holds(p, p, 12) == pytest.approx(slow_probability(p, 12), abs=1e-9)


def test_probabilities_are_right_on_average() -> None:
    p, holds = pool(np.random.default_rng(1), 20_000, 0.4, 100)
    probability = probability_that_it_holds(p, p, 100)
    assert share_that_keeps(p) == pytest.approx(0.4, abs=0.02)
    for low, high in ((0, 0.1), (0.1, 0.5), (0.5, 1.01)):
        among = (probability >= low) & (probability < high)
        assert holds[among].mean() == pytest.approx(probability[among].mean(), abs=0.07)


def test_where_all_keep_it_nearly_all_are_called_likely() -> None:
    p, _ = pool(np.random.default_rng(2), 3000, 1.0, 100)
    assert probability_that_it_holds(p, p, 100).mean() > 0.9


def test_a_higher_p_value_is_never_less_likely() -> None:
    p, _ = pool(np.random.default_rng(3), 300, 0.5, 20)
    ordered = probability_that_it_holds(np.sort(p), p, 20)
    assert (np.diff(ordered) >= 0).all()
