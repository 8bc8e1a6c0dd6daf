"""LESS: influence along the checkpoints of a warm-up."""

from __future__ import annotations

from typing import Any

from ost_hf.scorers.less.options import LessOptions
from ost_hf.scorers.registry import ANCHORS, PROXY, register


@register("less", needs=(PROXY, ANCHORS), options=LessOptions, columns={"group_by": "group:"})
def build(**what_it_may_use: Any) -> Any:
    """The scorer."""
    from ost_hf.scorers.less.scorer import LessScorer

    return LessScorer(**what_it_may_use)
