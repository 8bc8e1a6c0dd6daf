"""The score table: Parquet parts and a manifest in one folder.

Columns: ``example_id``, ``row`` (its place in the pool), ``utility`` (higher helps more), ``utility_se``, ``loss``
(nats per token), ``tokens`` (supervised), ``status`` (:mod:`ost_hf.tables.statuses`), ``detail``, and what else the
scorer and a second stage give (``grad_norm``, ``group:NAME``, ``late_loss``, ``corrupted_p``, vectors such as
``sketch``). Every row of the pool appears exactly once; one without a utility has a status that says why.

What a reader needs beside the numbers stands in columns too, so that it survives every format: a table with
``corrupted_p`` has ``p_value_anchors``, the number of anchors that those p-values were made with, and ``held_out``,
whether the row's judge could not learn from it. ``other_kind_p`` is made with the same anchors.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ost_hf.errors import RunDirectoryError
from ost_hf.files import write_json, write_whole
from ost_hf.settings import name_differences
from ost_hf.tables.columns import SCHEMA

if TYPE_CHECKING:
    import datasets
    import pandas

# How many anchors stand behind `corrupted_p`.
P_VALUE_ANCHORS = "p_value_anchors"
HELD_OUT = "held_out"
# The p-value of "this row is of the anchors' kind".
OTHER_KIND_P = "other_kind_p"

_KEY = b"ost_hf.scores"


@dataclass(frozen=True)
class ScoreMetadata:
    """What a score table was made with; it travels with the table, and nothing that selecting needs is here alone.

    Attributes:
        strategy: The strategy whose defaults the table was scored under, where one was named.
        settings: The ``scoring`` section as it was resolved.
        anchors: The number of anchors, if the scorer asked any.
        versions: Of the libraries.
    """

    strategy: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    anchors: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def attached_to(self, table: pa.Table) -> pa.Table:
        """The table with this as its metadata."""
        return table.replace_schema_metadata({_KEY: json.dumps(asdict(self))})

    @classmethod
    def of(cls, table: pa.Table) -> ScoreMetadata:
        """What a table says of itself; nothing where it was made elsewhere."""
        said = (table.schema.metadata or {}).get(_KEY)
        return cls(**json.loads(said)) if said is not None else cls()


class ScoreTable:
    """A folder of ``part-*.parquet`` files with ``manifest.json``.

    Args:
        folder: The ``scores`` folder of a run directory.

    Example:
        >>> scores = ost_hf.score(pool, anchors, proxy="Qwen/Qwen3-0.6B", output_dir="runs/a")
        >>> scores  # doctest: +SKIP
        ScoreTable in runs/a/scores: 3,000 rows (2,990 ok, 10 too_long), utility -0.11 to 0.32
        >>> scores.to_pandas().sort_values("utility")  # doctest: +SKIP
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    @classmethod
    def at(cls, path: str | Path) -> ScoreTable:
        """The score table of a run directory, or of its ``scores`` folder."""
        folder = Path(path).expanduser()
        return cls(folder / "scores" if (folder / "scores").is_dir() else folder)

    def __len__(self) -> int:
        return int(self.manifest()["rows"])

    def __bool__(self) -> bool:
        """A table is one before its first row."""
        return True

    def __repr__(self) -> str:
        if not (self.folder / "manifest.json").exists():
            return f"ScoreTable in {self.folder}: nothing scored yet"
        if len(done := self.rows_done()) < len(self):
            return f"ScoreTable in {self.folder}: {len(done):,} of {len(self):,} rows scored so far"
        table = self.read(columns=["row", "status", "utility"])
        counts = ", ".join(f"{count:,} {status}" for status, count in statuses_of(table).most_common())
        ends = pc.min_max(table["utility"]).as_py()
        utility = "no utility" if ends["min"] is None else f"utility {ends['min']:.3g} to {ends['max']:.3g}"
        return f"ScoreTable in {self.folder}: {len(table):,} rows ({counts}), {utility}"

    def to_pandas(self) -> pandas.DataFrame:
        """All rows and columns as a data frame."""
        return self.read().to_pandas()

    def to_dataset(self) -> datasets.Dataset:
        """All rows and columns as a ``datasets.Dataset``."""
        import datasets

        return datasets.Dataset(self.read())

    @property
    def column_names(self) -> set[str]:
        """The columns of the parts that are there; their rows are not read."""
        return {name for part in self._parts() for name in pq.read_schema(part).names}

    @property
    def metadata(self) -> ScoreMetadata:
        """What the table was made with."""
        manifest = self.manifest()
        return ScoreMetadata(
            strategy=manifest.get("strategy"),
            settings=manifest["identity"].get("scoring", {}),
            anchors=manifest.get("anchors"),
            versions=manifest.get("versions", {}),
        )

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
        write_json(self.folder / "manifest.json", {"identity": dict(identity), **more})

    def add_to_manifest(self, **facts: Any) -> None:
        """Puts facts beside the identity, in place of those of the same name."""
        manifest = self.manifest()
        self.write_manifest(manifest.pop("identity"), **{**manifest, **facts})

    def write_part(self, rows: pa.Table) -> None:
        """Writes one part under a temporary name and renames it: a part is whole or absent.

        Args:
            rows: The columns of ``SCHEMA`` and others, in the order of ``row``.
        """
        name = self.part_name(rows["row"].to_pylist())
        write_whole(self.folder / name, lambda path: pq.write_table(rows, path))

    @staticmethod
    def part_name(rows: list[int]) -> str:
        """The file name of a part, by its first row: parts never share rows."""
        return f"part-{min(rows):010d}.parquet"

    def rows_done(self) -> set[int]:
        """The rows that stand in the table already."""
        return {row for part in self._parts() for row in pq.read_table(part, columns=["row"])["row"].to_pylist()}

    def read(self, complete: bool = True, columns: list[str] | None = None) -> pa.Table:
        """All rows in the pool's order, with the table's :class:`ScoreMetadata`.

        Args:
            complete: Require every row of the pool.
            columns: Read these alone, as far as they are there, ``row`` among them; by default all.

        Raises:
            RunDirectoryError: If rows are missing or doubled.
        """
        total = len(self)
        parts = [_read_part(part, columns) for part in self._parts()]
        if not parts:
            raise RunDirectoryError(f"the score table in {self.folder} has no rows yet: run the score stage")
        table = pa.concat_tables(parts, promote_options="default").sort_by("row")
        rows = table["row"].to_pylist()
        if len(set(rows)) != len(rows):
            raise RunDirectoryError(f"rows appear more than once in {self.folder}; remove the folder and score again")
        if complete and len(rows) != total:
            raise RunDirectoryError(
                f"the score table in {self.folder} has {len(rows)} of {total} rows; "
                "run the score stage again to finish it"
            )
        return self.metadata.attached_to(table)

    def stream(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows that are there, a part at a time: the vectors of a large pool may not fit into memory."""
        for part in self._parts():
            yield _read_part(part, columns)

    def _has_rows(self) -> bool:
        """Whether a row is stored here or in the tables inside that lead to this one."""
        return any(self.folder.rglob("part-*.parquet"))

    def _parts(self) -> Iterable[Path]:
        return sorted(self.folder.glob("part-*.parquet"))


def statuses_of(table: pa.Table) -> Counter[str]:
    """How many rows have each status."""
    return Counter(table["status"].to_pylist())


def p_value_anchors(table: pa.Table) -> int | None:
    """How many anchors a table's p-values were made with; ``None`` where it has no such column, or no number there."""
    if P_VALUE_ANCHORS not in table.column_names:
        return None
    least = pc.min(table[P_VALUE_ANCHORS]).as_py()
    # Of a format without empty cells, NaN is one. Of nothing but NaN, older versions of pyarrow say infinity.
    return int(least) if least is not None and math.isfinite(least) else None


def _read_part(part: Path, columns: list[str] | None) -> pa.Table:
    known = None if columns is None else set(pq.read_schema(part).names)
    table = pq.read_table(part, columns=None if known is None else [name for name in columns or [] if name in known])
    # Of a part none of whose rows has a number, an empty column may be of no type.
    casts = {name: SCHEMA.field(name).type for name in table.column_names if name in SCHEMA.names}
    return table.cast(pa.schema([(name, casts.get(name, table[name].type)) for name in table.column_names]))
