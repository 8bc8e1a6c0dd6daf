"""Which turns of a score table's rows look corrupted: those with a small p-value against the anchors' turns."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from ost_hf.errors import DataError
from ost_hf.evidence.conformal import small_up_to
from ost_hf.tables.selection_table import MASKED


def corrupted_turns(scores: pa.Table) -> list[tuple[int | None, list[int]]]:
    """How many turns each row has, and the numbers (from 0) of those that look corrupted.

    Args:
        scores: A score table with ``turn_corrupted_p`` and ``turn_p_value_anchors``.

    Returns:
        One pair for each row; of a row without p-values nothing is known, and no turn of it looks corrupted.

    Raises:
        DataError: Where it is not known how many turns of anchors p-values were made with.
    """
    name = "turn_p_value_anchors"
    anchors = pc.min(scores[name]).as_py() if name in scores.column_names else None
    if anchors is None:
        raise DataError(
            f"the table does not say how many turns of anchors its column turn_corrupted_p was made with: keep a score "
            f"table's column {name}"
        )
    # A float32 holds a p-value, and may round it over the bound that it is equal to.
    bound = small_up_to(int(anchors)) * (1 + 1e-6)
    lists = scores["turn_corrupted_p"].to_pylist()
    found = [[turn for turn, p in enumerate(row or []) if p is not None and p <= bound] for row in lists]
    return [(None if row is None else len(row), turns) for row, turns in zip(lists, found, strict=True)]


def masked_in_words(selection: pa.Table) -> str:
    """How many turns of kept rows are masked, for an explanation."""
    counts = pc.list_value_length(selection.filter(selection["kept"])[MASKED])
    rows = pc.sum(pc.greater(counts, 0)).as_py() or 0
    return f"; {pc.sum(counts).as_py() or 0} turns of {rows} kept rows look corrupted and are masked"
