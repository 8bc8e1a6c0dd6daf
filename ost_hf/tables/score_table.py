"""The score table: Parquet parts and a manifest in one folder.

Columns: ``example_id``, ``row`` (its place in the pool), ``utility`` (higher helps more), ``utility_se``,
``loss`` (nats per token), ``tokens`` (supervised), ``status`` (``ok``, ``truncated``, ``too_long``,
``no_labels``, ``bad_image``, ``bad_row``, ``non_finite``, ``out_of_memory``, ``anchor_overlap``,
``evaluation_overlap``, ``duplicate``, ``no_score``, ``judge_unparsed``, ``judge_failed``), ``detail``, and what
else the scorer gives (``grad_norm``, ``group:NAME``, ``late_loss``, ``corrupted_p``, the lists ``VECTORS``). In the
tables of the second look's rounds ``loss`` is the late loss.
Every row of the pool appears exactly once; one without a utility has a status that says why.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ost_hf.errors import RunDirectoryError
from ost_hf.files import write_whole

SCHEMA = pa.schema(
    [
        ("example_id", pa.string()),
        ("row", pa.int64()),
        ("utility", pa.float64()),
        ("utility_se", pa.float64()),
        ("loss", pa.float64()),
        ("tokens", pa.int32()),
        ("status", pa.string()),
        ("detail", pa.string()),
    ]
)

# In the metadata of a table that is read: the number of anchors of the second look.
P_VALUE_ANCHORS = "corrupted_p_anchors"

# List columns, of fields of a score.
VECTORS = ("sketch", "anchor_utilities", "anchor_similarities")


class ScoreTable:
    """A folder of ``part-*.parquet`` files with ``manifest.json``.

    Args:
        folder: The ``scores`` folder of a run directory.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def manifest(self) -> dict[str, Any]:
        """What the table was made of.

        Raises:
            RunDirectoryError: If there is no score table.
        """
        path = self.folder / "manifest.json"
        if not path.exists():
            raise RunDirectoryError(f"no score table in {self.folder}: run the score stage first")
        return json.loads(path.read_text())

    def check_manifest(self, identity: Mapping[str, Any]) -> bool:
        """Compares what is about to be scored with what the folder holds.

        A folder without a stored row is nobody's: whatever began there has left nothing that could be mixed up.

        Returns:
            Whether there are rows, of the same identity.

        Raises:
            RunDirectoryError: If they are of another configuration or dataset; the differences are named.
        """
        if not (self.folder / "manifest.json").exists() or not self._has_rows():
            return False
        differences = name_differences(self.manifest()["identity"], dict(identity))
        if differences:
            raise RunDirectoryError(
                f"{self.folder} holds scores of another run: {'; '.join(differences)}. "
                "Choose another run_dir, or remove its folders scores and proxy to score again"
            )
        return True

    def write_manifest(self, identity: Mapping[str, Any], **more: Any) -> None:
        """Writes ``manifest.json``: the identity a resumed run must share, and facts beside it."""
        write_whole(
            self.folder / "manifest.json",
            lambda path: path.write_text(json.dumps({"identity": dict(identity), **more}, indent=2) + "\n"),
        )

    def add_to_manifest(self, **facts: Any) -> None:
        """Puts facts beside the identity, in place of those of the same name."""
        manifest = self.manifest()
        self.write_manifest(manifest.pop("identity"), **{**manifest, **facts})

    def write_part(self, records: list[dict[str, Any]]) -> None:
        """Writes one part under a temporary name and renames it: a part is whole or absent."""
        extra = sorted({key for record in records for key in record} - set(SCHEMA.names))
        types = dict.fromkeys(VECTORS, pa.list_(pa.float32()))
        schema = pa.schema([*SCHEMA, *((name, types.get(name, pa.float64())) for name in extra)])
        table = pa.Table.from_pylist(records, schema=schema)
        write_whole(self.folder / self.part_name([r["row"] for r in records]), lambda path: pq.write_table(table, path))

    @staticmethod
    def part_name(rows: list[int]) -> str:
        """The file name of a part, by its first row: parts never share rows."""
        return f"part-{min(rows):010d}.parquet"

    def rows_done(self) -> set[int]:
        """The rows that stand in the table already."""
        return {row for part in self._parts() for row in pq.read_table(part, columns=["row"])["row"].to_pylist()}

    def read(self, complete: bool = True, columns: list[str] | None = None) -> pa.Table:
        """All rows in the pool's order.

        Args:
            complete: Require every row of the pool.
            columns: Read these alone, as far as they are there, ``row`` among them; by default all.

        Raises:
            RunDirectoryError: If rows are missing or doubled.
        """
        total = self.manifest()["rows"]
        parts = [_read_part(part, columns) for part in self._parts()]
        if not parts:
            raise RunDirectoryError(f"the score table in {self.folder} has no rows yet: run the score stage")
        table = pa.concat_tables(parts, promote_options="default").sort_by("row")
        table = table.replace_schema_metadata(
            {P_VALUE_ANCHORS: str(count)} if (count := self.p_value_anchors()) else None
        )
        rows = table["row"].to_pylist()
        if len(set(rows)) != len(rows):
            raise RunDirectoryError(f"rows appear more than once in {self.folder}; remove the folder and score again")
        if complete and len(rows) != total:
            raise RunDirectoryError(
                f"the score table in {self.folder} has {len(rows)} of {total} rows; "
                "run the score stage again to finish it"
            )
        return table

    def p_value_anchors(self) -> int | None:
        """How many anchors the second look's p-values were made with; ``None`` without one."""
        losses = self.manifest().get("second_look", {}).get("anchor_losses")
        return min(map(len, losses)) if losses else None

    def _has_rows(self) -> bool:
        """Whether a row is stored here or in the tables inside that lead to this one."""
        return any(self.folder.rglob("part-*.parquet"))

    def _parts(self) -> Iterable[Path]:
        return sorted(self.folder.glob("part-*.parquet"))


def _read_part(part: Path, columns: list[str] | None) -> pa.Table:
    known = None if columns is None else set(pq.read_schema(part).names)
    return pq.read_table(part, columns=None if known is None else [name for name in columns or [] if name in known])


def name_differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Where two nested settings differ, one phrase each."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            difference
            for key in sorted(set(old) | set(new))
            for difference in name_differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
        ]
    return [] if old == new else [f"{name} was {old!r}, now {new!r}"]
