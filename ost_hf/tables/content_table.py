"""What each row of a pool says, as a hash, beside its scores: ``contents.parquet``.

By it a later run knows which rows of another pool have stored values: an ``example_id`` may be a column of the user's,
which stays the same where a row was edited.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ost_hf.files import write_whole
from ost_hf.tables.score_table import ScoreTable


def write_contents(table: ScoreTable, hashes: Sequence[str]) -> None:
    """Writes the hash of each row, in the pool's order."""
    contents = pa.table({"row": pa.array(range(len(hashes)), pa.int64()), "content": pa.array(hashes, pa.string())})
    write_whole(_file(table), lambda temporary: pq.write_table(contents, temporary))


def read_contents(table: ScoreTable) -> list[str] | None:
    """What :func:`write_contents` wrote; ``None`` if nothing."""
    path = _file(table)
    return pq.read_table(path)["content"].to_pylist() if path.exists() else None


def _file(table: ScoreTable) -> Path:
    return table.folder / "contents.parquet"
