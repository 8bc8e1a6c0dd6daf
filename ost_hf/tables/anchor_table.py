"""What a scorer says of the anchors themselves, rows that are known to be clean: ``anchors.parquet`` beside the scores.

One row for each anchor, in the anchors' order: ``row``, ``loss``, ``utility`` (against the *other* anchors, for one
that vouches for itself says nothing; null where there is no such number) and, where candidates have them, ``sketch``
and ``embedding``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ost_hf.files import write_whole
from ost_hf.tables.columns import VECTORS, Columns
from ost_hf.tables.score_table import ScoreTable

_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("loss", pa.float64()),
        ("utility", pa.float64()),
        *((name, pa.list_(pa.float32())) for name in VECTORS),
    ]
)


def write_anchor_scores(table: ScoreTable, columns: Columns) -> None:
    """Writes the anchors' scores beside a score table.

    Args:
        table: The score table.
        columns: ``loss`` and ``utility`` ``[V]``, and ``sketch`` and ``embedding`` ``[V, k]`` if there are such.
    """
    count = len(columns["utility"])
    vectors = {
        name: pa.array(_single(columns[name]) if name in columns else [None] * count, _SCHEMA.field(name).type)
        for name in VECTORS
    }
    numbers = {name: np.asarray(columns[name], dtype=np.float64) for name in ("loss", "utility")}
    arrays = {name: pa.array(values, mask=np.isnan(values)) for name, values in numbers.items()}
    scores = pa.table({"row": list(range(count)), **arrays, **vectors})
    write_whole(anchor_file(table), lambda temporary: pq.write_table(scores.cast(_SCHEMA), temporary))


def _single(vectors: np.ndarray) -> list[np.ndarray]:
    return list(vectors.astype(np.float32))


def read_anchor_scores(table: ScoreTable) -> pa.Table | None:
    """What :func:`write_anchor_scores` wrote; ``None`` if nothing."""
    path = anchor_file(table)
    return pq.read_table(path) if path.exists() else None


def anchor_file(table: ScoreTable) -> Path:
    """Where the anchors' scores lie beside a score table."""
    return table.folder / "anchors.parquet"
