"""Columns of a score table as arrays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ost_hf.tables.columns import SCHEMA, VECTORS
from ost_hf.tables.score_table import HELD_OUT


def numbers(table: pa.Table, column: str) -> NDArray[np.float64] | None:
    """A column as ``[rows]``, NaN where it is empty; ``None`` if there is none."""
    return table[column].to_numpy().astype(np.float64) if column in table.column_names else None


def pool_p_of(scores: pa.Table) -> NDArray[np.float64] | None:
    """The p-values that say what the pool is like: those of rows held out from the judges, where a table names them."""
    p, held_out = numbers(scores, "corrupted_p"), numbers(scores, HELD_OUT)
    if p is None or held_out is None:
        return p
    # Of a part of a table, held-out rows may all be gone.
    told = (held_out == 1) & ~np.isnan(p)
    return p[told] if told.any() else p


def one_judge(scores: pa.Table) -> bool:
    """Whether rows were judged that their judge may have learnt from."""
    held_out = numbers(scores, HELD_OUT)
    return held_out is not None and bool((held_out == 0).any())


def without_vectors(table: pa.Table) -> pa.Table:
    """The table without its bulk: what sorts or filters it need not copy that."""
    return table.drop_columns([name for name in VECTORS if name in table.column_names])


def anchors_of_utilities(table: pa.Table) -> int:
    """How many anchors the column ``anchor_utilities`` is of; 0 without one."""
    if "anchor_utilities" not in table.column_names:
        return 0
    return pc.max(pc.list_value_length(table["anchor_utilities"])).as_py() or 0


def more_columns(table: pa.Table) -> set[str]:
    """The names of the columns beside the usual ones that have a value."""
    names = set(table.column_names) - set(SCHEMA.names)
    return {name for name in names if table[name].null_count < len(table)}
