"""Which rows are of the anchors' kind, by vectors."""

from __future__ import annotations

import numpy as np
import pytest

from ost_hf.evidence.relevance import relevance

DIMENSIONS = 24


def mixture(generator: np.random.Generator, rows: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Vectors with one large common part, of which a share is moved along a direction of little variance."""
    spread = np.linspace(5, 0.5, DIMENSIONS)
    of_kind = generator.random(rows) < share
    vectors = 20 + generator.normal(size=(rows, DIMENSIONS)) * spread
    vectors[of_kind, -1] += 3
    return vectors, of_kind


def slow_relevance(rows: np.ndarray, anchors: np.ndarray, ridge: float = 0.03) -> tuple[np.ndarray, np.ndarray]:
    """The page's formulas, an entry at a time, by a matrix square root in place of principal axes."""
    everything = [*rows, *anchors]
    centre = sum(everything) / len(everything)
    covariance = sum(np.outer(row - centre, row - centre) for row in everything) / len(everything)
    addition = ridge * np.trace(covariance) / len(covariance)
    values, axes = np.linalg.eigh(covariance + addition * np.eye(len(covariance)))
    root = axes @ np.diag(values**-0.5) @ axes.T
    whitened = (values - addition) / values
    sharpness = (whitened.sum() ** 2 / (whitened**2).sum()) ** 0.5 / 4

    def unit(vector: np.ndarray) -> np.ndarray:
        moved = root @ (vector - centre)
        return moved / np.sqrt(moved @ moved)

    def score(vector: np.ndarray, others: list[np.ndarray]) -> float:
        return float(np.log(np.mean([np.exp(sharpness * (unit(vector) @ unit(other))) for other in others])))

    every = list(anchors)
    of_anchors = [score(anchor, every[:place] + every[place + 1 :]) for place, anchor in enumerate(every)]
    return np.array([score(row, every) for row in rows]), np.array(of_anchors)


def test_scores_are_those_of_the_formulas() -> None:
    generator = np.random.default_rng(0)
    rows, _ = mixture(generator, 40, 0.3)
    anchors, _ = mixture(generator, 7, 1.0)
    found = relevance(rows, anchors)
    expected_rows, expected_anchors = slow_relevance(rows, anchors)
    # The fast form subtracts the sharpness from all scores alike, which no rank and no p-value sees.
    shift = found.score[0] - expected_rows[0]
    assert np.abs(found.score - expected_rows - shift).max() < 1e-9
    assert np.abs(found.of_anchors - expected_anchors - shift).max() < 1e-9
    expected_p = [(1 + (found.of_anchors <= score).sum()) / (1 + len(anchors)) for score in found.score]
    assert found.p.tolist() == pytest.approx(expected_p)


@pytest.mark.parametrize("anchor_count", [20, 100])
def test_rows_of_the_anchors_kind_are_told_apart_where_all_look_much_alike(anchor_count: int) -> None:
    generator = np.random.default_rng(1)
    rows, of_kind = mixture(generator, 1000, 0.2)
    anchors, _ = mixture(generator, anchor_count, 1.0)
    found = relevance(rows, anchors)
    # The share of pairs, one row of each kind, that are in the right order.
    right = (found.score[of_kind][:, None] > found.score[~of_kind][None]).mean()
    assert right > (0.9 if anchor_count == 20 else 0.95)
    unit_rows, unit_anchors = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (rows, anchors))
    nearest = (unit_rows @ unit_anchors.T).max(1)
    assert right > (nearest[of_kind][:, None] > nearest[~of_kind][None]).mean() + 0.2


def test_anchors_of_two_kinds_whose_mean_is_the_pools_are_both_found() -> None:
    generator = np.random.default_rng(2)
    rows = generator.normal(size=(1500, DIMENSIONS))
    anchors = generator.normal(size=(100, DIMENSIONS))
    rows[:200, 0] += 6
    rows[200:400, 0] -= 6
    anchors[:50, 0] += 6
    anchors[50:, 0] -= 6
    found = relevance(rows, anchors)
    assert (found.score[:400][:, None] > found.score[400:][None]).mean() > 0.75


def test_p_values_are_uniform_where_the_pool_is_of_the_anchors_kind() -> None:
    means, small = [], []
    for seed in range(40):
        vectors, _ = mixture(np.random.default_rng(100 + seed), 540, 0.2)
        found = relevance(vectors[40:], vectors[:40])
        means.append(found.p.mean())
        small.append((found.p <= 0.1).mean())
    # Their expectations are 0.512 and 0.098; the bounds are three standard errors of 40 pools.
    assert abs(np.mean(means) - 0.512) < 3 * np.std(means) / 40**0.5 + 1e-3
    assert abs(np.mean(small) - 4 / 41) < 3 * np.std(small) / 40**0.5 + 1e-3


@pytest.mark.parametrize(("rows", "anchors", "dimensions"), [(400, 50, 256), (1000, 100, 256), (200, 100, 64)])
def test_long_vectors_and_few_rows_make_no_other_kind(rows: int, anchors: int, dimensions: int) -> None:
    """Rows and anchors are alike; whitened by rows alone, anchors would stand out by ten standard deviations."""
    means = []
    for seed in range(8):
        vectors = np.random.default_rng(seed).normal(size=(rows + anchors, dimensions))
        means.append(relevance(vectors[anchors:], vectors[:anchors]).p.mean())
    assert abs(np.mean(means) - 0.5) < 0.05


def test_rows_that_are_not_typical_change_no_score() -> None:
    generator = np.random.default_rng(5)
    rows, _ = mixture(generator, 300, 0.3)
    anchors, _ = mixture(generator, 30, 1.0)
    junk = 100 * generator.normal(size=(200, DIMENSIONS))
    typical = np.arange(500) < 300
    alone, beside = relevance(rows, anchors), relevance(np.concatenate([rows, junk]), anchors, typical)
    assert np.abs(beside.score[:300] - alone.score).max() < 1e-9
    assert np.abs(beside.of_anchors - alone.of_anchors).max() < 1e-9
    assert (beside.p[300:] < 0.5).mean() > 0.7


def test_what_is_all_the_same_tells_nothing() -> None:
    found = relevance(np.ones((5, 3)), np.ones((4, 3)))
    assert np.ptp(found.score) == 0
    assert found.p.tolist() == [1.0] * 5


def test_one_anchor_has_no_others_to_be_held_against() -> None:
    with pytest.raises(ValueError, match="two anchors and two rows, got 1 and 5"):
        relevance(np.ones((5, 3)), np.ones((1, 3)))
