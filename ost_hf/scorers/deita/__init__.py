"""DEITA: rated complexity of the questions times rated quality of the answers."""

from __future__ import annotations

from typing import Any

from ost_hf.scorers.deita.options import DeitaOptions
from ost_hf.scorers.registry import register


@register("deita", options=DeitaOptions, columns={"always": ("complexity", "quality", "sketch")})
def build(**what_it_may_use: Any) -> Any:
    """The scorer."""
    from ost_hf.scorers.deita.scorer import DeitaScorer

    return DeitaScorer(**what_it_may_use)
