"""What a selection kept, in a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ost_hf.scoring.passes import cost_in_words
from ost_hf.tables.selection_table import VERDICTS, SelectionTable

# So many values of a column fit into a line.
_VALUES = 10


def kept_in_words(
    selection: SelectionTable,
    balance_by: str | None = None,
    values: Sequence[Any] | None = None,
    cost: Mapping[str, Any] | None = None,
) -> list[str]:
    """What is kept, the verdicts, what is kept of each value of a column of the pool, and what the scores cost.

    Args:
        selection: The selection.
        balance_by: The column.
        values: Its value for each row of the pool.
        cost: That of the scores, as their manifest has it.
    """
    lines = [f"kept {selection.kept_count} of {len(selection)} rows"]
    if found := selection.verdicts:
        counts = ", ".join(f"{found[name]} {name}" for name in VERDICTS)
        lines.append(f"verdicts of {found.total()} scored rows: {counts}")
    if values is not None:
        table = selection.table
        names = [str(values[row]) for row in table["row"].to_pylist()]
        of_kept = Counter(name for name, kept in zip(names, table["kept"].to_pylist(), strict=True) if kept)
        totals = Counter(names).most_common()
        parts = [f"{name} {of_kept[name]} of {total}" for name, total in totals[:_VALUES]]
        more = [f"and {len(totals) - _VALUES} more values"] if len(totals) > _VALUES else []
        lines.append(f"kept by {balance_by}: {', '.join(parts + more)}")
    if cost is not None:
        lines.append(cost_in_words(cost))
    return lines
