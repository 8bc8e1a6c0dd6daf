"""What the figures are held to."""

from __future__ import annotations

from typing import Any

# Name of a figure, kind, bar.
BARS: list[tuple[str, str, float]] = [
    ("exact_over_reference.all", "at_least", 1.8),
    ("exact_over_reference.quarter", "at_least", 4.0),
    ("reverse_over_reference.all", "at_least", 40),
    ("forward_over_reference.all", "at_least", 40),
    ("reverse_over_reference.quarter", "at_least", 70),
    ("forward_over_reference.quarter", "at_least", 70),
    ("reverse_over_reference.many_anchors", "at_least", 400),
    ("reverse_in_plain_forwards.all", "at_most", 2.5),
    ("reverse_in_training_steps.all", "at_most", 0.95),
    ("forward_in_plain_forwards.all", "at_most", 2.1),
    ("spearman_with_exact.reverse.all.sgd", "at_least", 0.99),
    ("spearman_with_exact.forward.all.sgd", "at_least", 0.99),
    ("spearman_with_exact.reverse.all.adamw", "at_least", 0.95),
    ("spearman_with_exact.forward.all.adamw", "at_least", 0.95),
    ("bf16_central_over_reverse.sgd", "at_least", 0.98),
    ("bf16_central_over_reverse.adamw", "at_least", 0.98),
    ("forward_peak_over_inference", "at_most", 1.3),
    ("forward_activations_over_inference", "at_most", 1.3),
    ("many_anchors_over_few.reverse", "at_most", 1.05),
    ("20_groups_over_one.reverse", "at_most", 1.2),
    ("over_bergson.same_layers", "at_least", 1.2),
]


def judge(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """Each bar whose figure was measured, with what was measured; ratios by their median."""
    judged = [_judge(name, figures[name], kind, bar) for name, kind, bar in BARS if name in figures]
    share = figures.get("share_above_first_adapted_layer.quarter")
    if share is not None:
        # Frozen layers once, adapted ones twice, and 8 % for everything else.
        name = "forward_in_plain_forwards.quarter"
        judged.append(_judge(name, figures[name], "at_most", 1.08 * (1 + share)))
    return judged


def _judge(name: str, figure: Any, kind: str, bar: float) -> dict[str, Any]:
    value = figure["median"] if isinstance(figure, dict) else figure
    met = value >= bar if kind == "at_least" else value <= bar
    return {"figure": name, "value": value, "kind": kind, "bar": bar, "met": met}
