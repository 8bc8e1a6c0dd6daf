"""What a selection says of a kept row beside that it is kept: its weight, and which of its turns are left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ost_hf.tables.selection_table import MASKED, TURNS, WEIGHT

# Columns of a selection table that say so.
COLUMNS = (WEIGHT, TURNS, MASKED)
# What these are called beside the columns of a row itself.
ON_ROWS = {WEIGHT: WEIGHT, TURNS: "ost_turns", MASKED: "ost_masked_turns"}


@dataclass(frozen=True)
class Marks:
    """``masked`` are numbers of turns, from 0, of a row that has ``turns`` of them, where that is known."""

    weight: float | None = None
    masked: tuple[int, ...] = ()
    turns: int | None = None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Marks:
        """Those of a row of a selection table."""
        return cls(record.get(WEIGHT), tuple(record.get(MASKED) or ()), record.get(TURNS))
