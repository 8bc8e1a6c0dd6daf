"""Utilities that are divided by something: with them go their groups, errors and anchors' utilities."""

from __future__ import annotations

from typing import Any

import pytest
from scored import build_scorer, records

from ost_hf.scoring.config import ScoringConfig


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["reverse", "forward", "exact"])
def test_scores_are_raw_ones_over_the_divisor(warm_proxy, pool, anchors, estimator: str) -> None:
    def scores(utility: str) -> list[dict[str, Any]]:
        options = {"estimator": estimator, "utility": utility, "update_rule": "sgd"}
        config = ScoringConfig(sections={"one_step": options})
        return records(build_scorer(config, proxy=warm_proxy, anchors=anchors), rows)

    rows = [pool.encode(row) for row in range(6)]
    raw = scores("raw")
    for relative, score in zip(scores("relative"), raw, strict=True):
        assert relative["utility"] == pytest.approx(score["utility"] / score["loss"], rel=1e-4)
    if estimator == "reverse":
        for divided, score in zip(scores("per_gradient_norm"), raw, strict=True):
            assert divided["utility"] == pytest.approx(score["utility"] / score["grad_norm"], rel=1e-4)


def test_groups_errors_and_anchors_are_divided_too(warm_proxy, pool, anchors) -> None:
    def score(utility: str) -> dict[str, Any]:
        config = ScoringConfig(sections={"one_step": {"utility": utility}}, per_anchor=True, group_by="operation")
        scorer = build_scorer(config, proxy=warm_proxy, anchors=anchors)
        return records(scorer, [pool.encode(0), pool.encode(1)])[0]

    raw, relative = score("raw"), score("relative")
    groups = [name for name in raw if name.startswith("group:")]
    assert groups
    for name in [*groups, "utility_se"]:
        assert relative[name] == pytest.approx(raw[name] / raw["loss"], rel=1e-4)
    assert relative["anchor_utilities"] == pytest.approx(raw["anchor_utilities"] / raw["loss"], rel=1e-4)


def test_anchor_utilities_are_in_the_anchors_order(warm_proxy, pool, anchors) -> None:
    """Anchors are batched by length; their utilities come in the order of the anchor set."""
    scorer = build_scorer(ScoringConfig(per_anchor=True), proxy=warm_proxy, anchors=anchors)
    itself = records(scorer, [anchors.encode(row) for row in range(len(anchors))])
    for place, score in enumerate(itself):
        assert score["anchor_utilities"][place] == pytest.approx(1.0, abs=1e-4)
        assert score["utility"] == pytest.approx(score["anchor_utilities"].mean(), abs=1e-5)
