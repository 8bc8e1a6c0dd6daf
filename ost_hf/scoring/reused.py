"""An earlier run whose stored values stand for a pass over the pool."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ost_hf.data.rows import Rows
from ost_hf.errors import RunDirectoryError
from ost_hf.tables.content_table import read_contents
from ost_hf.tables.score_table import ScoreTable
from ost_hf.tables.statuses import COPY_STATUSES, OUT_OF_MEMORY

# Rows that were not asked, or might be answered for elsewhere: nothing of theirs is stored.
_WITHOUT_VALUES = (*COPY_STATUSES, OUT_OF_MEMORY)


@dataclass(frozen=True)
class Reused:
    """A finished run.

    Attributes:
        folder: Its run directory.
        same_anchors: Whether its anchors are those that are asked now.
    """

    folder: Path
    same_anchors: bool

    @property
    def table(self) -> ScoreTable:
        """Its score table."""
        return ScoreTable(self.folder / "scores")

    def values(self, rows: Rows, wanted: Iterable[int], columns: list[str] | None = None) -> Iterator[pa.Table]:
        """What is stored of rows that say the same as a row of the earlier pool.

        Args:
            rows: A pool.
            wanted: Which of its rows.
            columns: Those to read beside ``row`` and ``status``; by default all.

        Yields:
            A table for each part of the earlier run's that has some of them, in the order of ``row``: the row of
            ``rows``, its ``example_id``, and the stored columns. No row comes twice.

        Raises:
            RunDirectoryError: If the run did not store what its rows say.
        """
        contents = read_contents(self.table)
        if contents is None:
            raise RunDirectoryError(f"{self.table.folder} has no contents.parquet: score that run again")
        rows_of: dict[str, list[int]] = defaultdict(list)
        for row in wanted:
            rows_of[rows.content_hashes[row]].append(row)
        for part in self.table.stream(None if columns is None else ["row", "status", *columns]):
            part = part.filter(pc.invert(pc.is_in(part["status"], pa.array(_WITHOUT_VALUES))))
            # Of rows that say the same the first has the say.
            pairs = sorted(
                (row, place)
                for place, stored in enumerate(part["row"].to_pylist())
                for row in rows_of.pop(contents[stored], ())
            )
            if pairs:
                found = part.take([place for _, place in pairs])
                yield _renamed(found, rows, [row for row, _ in pairs])


def _renamed(stored: pa.Table, rows: Rows, numbers: list[int]) -> pa.Table:
    """Stored values under the number and the name that their rows have in another pool."""
    columns = {name: stored[name] for name in stored.column_names}
    columns["row"] = pa.array(numbers, pa.int64())
    columns["example_id"] = pa.array([rows.example_ids[row] for row in numbers], pa.string())
    return pa.table(columns)
