"""One-step utilities: what would one optimizer step on a row do to the anchors' loss?"""

from __future__ import annotations

from typing import Any

from ost_hf.scorers.one_step.options import OneStepOptions
from ost_hf.scorers.registry import ANCHORS, PROXY, register


@register(
    "one_step",
    needs=(PROXY, ANCHORS),
    options=OneStepOptions,
    # And `grad_norm` with estimator `reverse`, which no selection goes by.
    columns={
        "per_anchor": "anchor_utilities",
        "group_by": "group:",
        "sketch_size": "sketch",
        "embedding_size": "embedding",
        "per_turn": ("turn_losses", "turn_utilities"),
    },
)
def build(**what_it_may_use: Any) -> Any:
    """The scorer."""
    from ost_hf.scorers.one_step.scorer import OneStepScorer

    return OneStepScorer(**what_it_may_use)
