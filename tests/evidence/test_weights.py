"""Weights of rows: likely clean, likely of the kind."""

from __future__ import annotations

import numpy as np
import pytest

from ost_hf.evidence.conformal import conformal_p
from ost_hf.evidence.two_groups import probability_that_it_holds
from ost_hf.evidence.weights import row_weights

ANCHORS = 100


def p_values(corrupted: int, clean: int = 400) -> np.ndarray:
    generator = np.random.default_rng(0)
    rows = np.concatenate([generator.normal(3, 1, corrupted), generator.normal(0, 1, clean)])
    return conformal_p(rows, generator.normal(0, 1, ANCHORS))


def test_weights_are_the_probabilities_one_row_at_a_time() -> None:
    p = p_values(200)
    of_kind = np.random.default_rng(1).random(len(p))
    weights = row_weights(p, ANCHORS, of_kind)
    slow = [
        probability_that_it_holds(np.array([each]), p, ANCHORS)[0] * kind for each, kind in zip(p, of_kind, strict=True)
    ]
    assert np.array_equal(weights, slow)
    assert weights.min() >= 0 and weights.max() <= 1


def test_corrupted_rows_weigh_little_and_rows_of_a_clean_pool_nearly_one() -> None:
    weights = row_weights(p_values(200), ANCHORS)
    assert weights[:200].mean() < 0.3 < 0.8 < weights[200:].mean()
    assert row_weights(p_values(0), ANCHORS).mean() > 0.9


def test_weight_does_not_depend_on_the_order_and_never_falls_as_p_rises() -> None:
    p = p_values(200)
    order = np.random.default_rng(2).permutation(len(p))
    assert np.array_equal(row_weights(p, ANCHORS)[order], row_weights(p[order], ANCHORS))
    assert (np.diff(row_weights(np.sort(p), ANCHORS)) >= 0).all()


def test_row_of_which_nothing_is_known_has_weight_zero() -> None:
    p = p_values(200)
    seen = row_weights(p, ANCHORS)
    with_gaps = row_weights(np.append(p, [np.nan, np.nan]), ANCHORS)
    assert np.array_equal(with_gaps, [*seen, 0, 0])
    of_kind = np.ones(len(p))
    of_kind[7] = np.nan
    assert row_weights(p, ANCHORS, of_kind)[7] == 0
    with pytest.raises(ValueError, match="no row has a p-value"):
        row_weights(np.full(3, np.nan), ANCHORS)
