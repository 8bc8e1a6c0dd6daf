"""Ranks a score table and says for each row whether it is kept, or why not.

The selection table has one row per candidate in the pool's order: ``example_id``, ``row``, ``utility``,
``rank`` (1 is best; null without a utility), ``kept``, ``reason``.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ost_hf.errors import DataError, RunDirectoryError
from ost_hf.selection.config import SelectionConfig

COLUMNS = ("example_id", "row", "utility", "rank", "kept", "reason")


def select(scores: pa.Table, config: SelectionConfig | None = None) -> pa.Table:
    """Keeps the rows of highest utility.

    Args:
        scores: A score table: ``example_id``, ``row``, ``utility``, ``status``.
        config: How much to keep. A share counts rows of the whole pool, unscored ones included.

    Returns:
        The selection table. Equal utilities are ordered by ``example_id``, so that the result does not
        depend on the order of the pool.

    Raises:
        DataError: If nothing would be kept.
    """
    config = config or SelectionConfig()
    records = scores.select(["example_id", "row", "utility", "status"]).to_pylist()
    ranked = sorted(
        (record for record in records if record["utility"] is not None),
        key=lambda record: (-record["utility"], record["example_id"]),
    )
    quota = config.quota(len(records))
    for rank, record in enumerate(ranked, start=1):
        record["rank"] = rank
        if config.min_utility is not None and record["utility"] < config.min_utility:
            record["reason"] = f"utility below {config.min_utility:g}"
        elif rank > quota:
            record["reason"] = f"ranked after the first {quota}"
        else:
            record["reason"] = "kept"
    for record in records:
        record.setdefault("rank", None)
        record.setdefault("reason", f"not scored: {record['status']}")
        record["kept"] = record["reason"] == "kept"
    if not any(record["kept"] for record in records):
        best = f"the highest utility is {ranked[0]['utility']:g}" if ranked else "no row of the pool has a utility"
        raise DataError(f"nothing would be kept with {config}: {best}")
    records.sort(key=lambda record: record["row"])
    types = [pa.string(), pa.int64(), pa.float64(), pa.int64(), pa.bool_(), pa.string()]
    schema = pa.schema(list(zip(COLUMNS, types, strict=True)), metadata={"selection": json.dumps(asdict(config))})
    return pa.Table.from_pylist(records, schema=schema)


def write_selection(table: pa.Table, path: str | Path) -> None:
    """Writes a selection table; whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pq.write_table(table, temporary)
    os.replace(temporary, path)


def read_selection(path: str | Path) -> pa.Table:
    """Reads ``selection.parquet``, given the file or its run directory.

    Raises:
        RunDirectoryError: If there is none, or a column is missing.
    """
    path = Path(path)
    path = path / "selection.parquet" if path.is_dir() else path
    if not path.exists():
        raise RunDirectoryError(f"no selection table at {path}: run the select stage first")
    table = pq.read_table(path)
    missing = [name for name in ("example_id", "row", "kept") if name not in table.column_names]
    if missing:
        raise RunDirectoryError(f"{path} is no selection table: it lacks {', '.join(missing)}")
    return table
