"""The selection table: for each row of the pool whether it is kept, its rank, and why not.

Columns: ``example_id``, ``row``, ``utility``, ``rank`` (1 is best; null without a utility), ``kept``, ``reason``, and
where there are p-values ``verdict`` (``toxic``, ``useful``, ``uncertain``). With ``selection.weighted_loss`` there is
``ost_weight``, in [0, 1] for every row, kept or not: the factor of the row's loss in a training. With
``selection.mask_turns`` there are ``turns``, how many a row has, and ``masked_turns``, the numbers (from 0) of those of
a kept row that a training leaves out.

In a folder it is ``selection.parquet`` with ``selection.json`` beside it: the settings that it was made with, and in
words what was found and what decided.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ost_hf.errors import RunDirectoryError
from ost_hf.files import write_json, write_whole

if TYPE_CHECKING:
    import datasets
    import pandas

COLUMNS = ("example_id", "row", "utility", "rank", "kept", "reason")
_TYPES = (pa.string(), pa.int64(), pa.float64(), pa.int64(), pa.bool_(), pa.string())
WEIGHT = "ost_weight"
# Columns that not every table has.
TURNS, MASKED = "turns", "masked_turns"
_OPTIONAL = {"verdict": pa.string(), WEIGHT: pa.float64(), TURNS: pa.int32(), MASKED: pa.list_(pa.int32())}
VERDICTS = ("toxic", "useful", "uncertain")
_NEEDED = ("example_id", "row", "kept")


@dataclass(frozen=True)
class SelectionMetadata:
    """How a selection was made.

    Attributes:
        settings: The ``selection`` section as it was resolved; empty for a table that was made elsewhere.
        explanation: In words, what was found and what decided.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    explanation: str = ""


class SelectionTable:
    """A selection table in memory.

    Args:
        table: At least ``example_id``, ``row`` and ``kept``.
        metadata: How it was made.

    Raises:
        RunDirectoryError: If a column is missing.
    """

    def __init__(self, table: pa.Table, metadata: SelectionMetadata | None = None):
        missing = [name for name in _NEEDED if name not in table.column_names]
        if missing:
            raise RunDirectoryError(f"this is no selection table: it lacks {', '.join(missing)}")
        self.table = table.replace_schema_metadata(None)
        self.metadata = metadata or SelectionMetadata()

    @classmethod
    def read(cls, path: str | Path) -> SelectionTable:
        """Reads ``selection.parquet``, given the file or its run directory.

        Raises:
            RunDirectoryError: If there is none, or a column is missing.
        """
        file = selection_file(path)
        if not file.exists():
            raise RunDirectoryError(f"no selection table at {file}: run the select stage first")
        facts = file.with_suffix(".json")
        said = json.loads(facts.read_text()) if facts.exists() else {}
        metadata = SelectionMetadata(said.get("settings", {}), said.get("explanation", ""))
        try:
            return cls(pq.read_table(file), metadata)
        except RunDirectoryError as error:
            raise RunDirectoryError(f"{file}: {error}") from None

    def write(self, path: str | Path) -> Path:
        """Writes the table and ``selection.json`` beside it, each whole or not at all; gives the table's file."""
        file = selection_file(path)
        write_whole(file, lambda temporary: pq.write_table(self.table, temporary))
        counts = {"rows": len(self), "kept": self.kept_count, "verdicts": dict(self.verdicts)}
        write_json(file.with_suffix(".json"), {**asdict(self.metadata), **counts})
        return file

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        said = f": {self.explanation}" if self.explanation else ""
        return f"{type(self).__name__}: kept {self.kept_count:,} of {len(self):,} rows{said}"

    @property
    def explanation(self) -> str:
        """In words, what was found and what decided."""
        return self.metadata.explanation

    @property
    def kept_count(self) -> int:
        """How many rows are kept."""
        return int(pc.sum(self.table["kept"]).as_py() or 0)

    @property
    def kept(self) -> pa.Table:
        """The kept rows' part of the table."""
        return self.table.filter(self.table["kept"])

    @property
    def verdicts(self) -> Counter[str]:
        """How many scored rows have each verdict; empty where there are none."""
        if "verdict" not in self.table.column_names:
            return Counter()
        return Counter(verdict for verdict in self.table["verdict"].to_pylist() if verdict is not None)

    def to_pandas(self) -> pandas.DataFrame:
        """All rows as a data frame."""
        return self.table.to_pandas()

    def to_dataset(self) -> datasets.Dataset:
        """All rows as a ``datasets.Dataset``."""
        import datasets

        return datasets.Dataset(self.table)


def selection_schema(*more: str) -> pa.Schema:
    """The columns of a selection table: those of every one, and ``more``."""
    return pa.schema([*zip(COLUMNS, _TYPES, strict=True), *((name, _OPTIONAL[name]) for name in more)])


def selection_file(path: str | Path) -> Path:
    """The table's file, given itself or its run directory."""
    path = Path(path).expanduser()
    return path if path.suffix == ".parquet" else path / "selection.parquet"
