"""Normalisations of the utility."""

from __future__ import annotations

import pytest
import torch

from ost_hf.functional.normalise import DIVIDED, divisor
from ost_hf.scorers.base import build_scorer
from ost_hf.scoring.config import ScoringConfig

LOSS = torch.tensor([2.0, 0.5, 0.0])
TOKENS = torch.tensor([4, 1, 2])
NORM = torch.tensor([5.0, 2.0, 0.0])


def test_each_divisor_is_its_formula() -> None:
    raw = torch.tensor([1.0, -2.0, 0.0])
    expected = {
        "raw": [1.0, -2.0, 0.0],
        "raw_per_sample": [4.0, -2.0, 0.0],
        "per_gradient_norm": [0.2, -1.0, 0.0],
        "relative": [0.5, -4.0, 0.0],
    }
    assert set(expected) == set(DIVIDED)
    for utility, values in expected.items():
        torch.testing.assert_close(raw / divisor(utility, LOSS, TOKENS, NORM), torch.tensor(values))


def test_unknown_names_and_missing_norms_are_refused() -> None:
    with pytest.raises(ValueError, match="utility must be one of raw, raw_per_sample"):
        divisor("mean_cosine", LOSS, TOKENS)
    with pytest.raises(ValueError, match="per_gradient_norm needs"):
        divisor("per_gradient_norm", LOSS, TOKENS)


@pytest.mark.parametrize("estimator", ["reverse", "forward", "exact"])
def test_scores_are_raw_ones_over_the_divisor(warm_proxy, pool, anchors, estimator: str) -> None:
    def scores(utility: str) -> list:
        settings = ScoringConfig(estimator=estimator, utility=utility, update_rule="sgd")
        return build_scorer("one_step", config=settings, proxy=warm_proxy, anchors=anchors).score(rows)

    rows = [pool.encode(row) for row in range(6)]
    raw = scores("raw")
    for relative, score in zip(scores("relative"), raw, strict=True):
        assert relative.utility == pytest.approx(score.utility / score.loss, rel=1e-4)
    if estimator == "reverse":
        for divided, score in zip(scores("per_gradient_norm"), raw, strict=True):
            assert divided.utility == pytest.approx(score.utility / score.columns["grad_norm"], rel=1e-4)


def test_groups_errors_and_anchors_are_divided_too(warm_proxy, pool, anchors) -> None:
    def score(utility: str):
        settings = ScoringConfig(utility=utility, per_anchor=True, group_by="operation")
        scorer = build_scorer("one_step", config=settings, proxy=warm_proxy, anchors=anchors)
        return scorer.score([pool.encode(0), pool.encode(1)])[0]

    raw, relative = score("raw"), score("relative")
    for name, value in raw.columns.items():
        if name.startswith("group:"):
            assert relative.columns[name] == pytest.approx(value / raw.loss, rel=1e-4)
    assert relative.utility_se == pytest.approx(raw.utility_se / raw.loss, rel=1e-4)
    assert relative.anchor_utilities == pytest.approx([value / raw.loss for value in raw.anchor_utilities], rel=1e-4)


def test_anchor_utilities_are_in_the_anchors_order(warm_proxy, pool, anchors) -> None:
    """Anchors are batched by length; their utilities come in the order of the anchor set."""
    settings = ScoringConfig(per_anchor=True)
    scorer = build_scorer("one_step", config=settings, proxy=warm_proxy, anchors=anchors)
    itself = scorer.score([anchors.encode(row) for row in range(len(anchors))])
    for place, score in enumerate(itself):
        assert score.anchor_utilities[place] == pytest.approx(1.0, abs=1e-4)
        assert score.utility == pytest.approx(sum(score.anchor_utilities) / len(anchors), abs=1e-5)
