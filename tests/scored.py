"""Scorers by configuration, and what they say of rows, one record a row."""

from __future__ import annotations

from typing import Any

from ost_hf.data.encoding.encoded import Encoded
from ost_hf.scorers.protocol import columns_of
from ost_hf.scorers.registry import SCORERS
from ost_hf.scoring.config import ScoringConfig


def build_scorer(config: ScoringConfig, **uses: Any) -> Any:
    """The scorer of a configuration, built as a run builds it.

    Args:
        config: The ``scoring`` section.
        **uses: What the scorer needs: ``pool``, ``proxy``, ``anchors``.
    """
    return SCORERS.find(config.scorer).build(config=config, options=config.options, **uses)


def records(scorer: Any, rows: list[Encoded]) -> list[dict[str, Any]]:
    """What a scorer gives for rows: its columns' entries by name, for each row."""
    columns = columns_of(scorer, rows)
    return [{name: values[place] for name, values in columns.items()} for place in range(len(rows))]
