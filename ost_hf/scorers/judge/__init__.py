"""A language model reads each row and rates it."""

from __future__ import annotations

from typing import Any

from ost_hf.scorers.judge.options import JudgeOptions
from ost_hf.scorers.registry import register


@register("judge", options=JudgeOptions, columns={})
def build(**what_it_may_use: Any) -> Any:
    """The scorer."""
    from ost_hf.scorers.judge.scorer import JudgeScorer

    return JudgeScorer(**what_it_may_use)
