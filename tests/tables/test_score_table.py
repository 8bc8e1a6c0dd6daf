"""The score table: a folder of parts, what it says of itself, and what survives other formats."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ost_hf.errors import RunDirectoryError
from ost_hf.tables.score_table import P_VALUE_ANCHORS, ScoreMetadata, ScoreTable, p_value_anchors, statuses_of

METADATA = ScoreMetadata("one_step", {"scorer": "one_step", "one_step": {"utility": "raw"}}, 12, {"ost-hf": "1"})
IDENTITY = {"scoring": dict(METADATA.settings), "pool": "a1b2"}


def rows_of(first: int, count: int, **columns: Any) -> pa.Table:
    """Rows whose utility is their number; those of a higher number than 99 are too long."""
    numbers = range(first, first + count)
    return pa.table(
        {
            "example_id": [f"id-{row}" for row in numbers],
            "row": pa.array(numbers, pa.int64()),
            "utility": pa.array([None if row > 99 else float(row) for row in numbers], pa.float64()),
            "utility_se": pa.array([None] * count, pa.float64()),
            "loss": pa.array([None] * count, pa.float64()),
            "tokens": pa.array([5] * count, pa.int32()),
            "status": ["too_long" if row > 99 else "ok" for row in numbers],
            "detail": [""] * count,
            **columns,
        }
    )


@pytest.fixture
def table(tmp_path: Path) -> ScoreTable:
    """Four of four rows, in parts that were written in another order."""
    made = ScoreTable(tmp_path / "run" / "scores")
    versions = dict(METADATA.versions)
    made.write_manifest(IDENTITY, rows=4, strategy=METADATA.strategy, anchors=12, versions=versions)
    made.write_part(rows_of(2, 2, **{P_VALUE_ANCHORS: pa.array([12, 12], pa.int32())}))
    made.write_part(rows_of(0, 2))
    return made


def test_rows_are_read_in_the_pools_order_whatever_the_parts(table: ScoreTable) -> None:
    assert table.read()["utility"].to_pylist() == [0.0, 1.0, 2.0, 3.0]
    assert table.rows_done() == {0, 1, 2, 3}
    # A column that a part lacks is empty there.
    assert table.read()[P_VALUE_ANCHORS].to_pylist() == [None, None, 12, 12]


def test_some_columns_are_read_as_far_as_they_are_there(table: ScoreTable) -> None:
    assert table.read(columns=["row", "status", "grad_norm"]).column_names == ["row", "status"]


def test_it_is_found_by_its_run_directory_or_its_folder(table: ScoreTable) -> None:
    for path in (table.folder, table.folder.parent, str(table.folder.parent)):
        assert ScoreTable.at(path).folder == table.folder
        assert len(ScoreTable.at(path)) == 4


def test_it_prints_what_it_holds(table: ScoreTable, tmp_path: Path) -> None:
    assert repr(table) == f"ScoreTable in {table.folder}: 4 rows (4 ok), utility 0 to 3"
    nothing = ScoreTable(tmp_path / "nothing")
    assert repr(nothing) == f"ScoreTable in {nothing.folder}: nothing scored yet"
    assert nothing, "a table is one before its first row"
    nothing.write_manifest({}, rows=1500)
    assert len(nothing) == 1500
    assert repr(nothing) == f"ScoreTable in {nothing.folder}: 0 of 1,500 rows scored so far"
    nothing.write_part(rows_of(100, 2))
    assert repr(nothing) == f"ScoreTable in {nothing.folder}: 2 of 1,500 rows scored so far"
    nothing.write_manifest({}, rows=2)
    assert repr(nothing) == f"ScoreTable in {nothing.folder}: 2 rows (2 too_long), no utility"


def test_statuses_are_counted() -> None:
    assert statuses_of(rows_of(98, 5)).most_common() == [("too_long", 3), ("ok", 2)]


def test_what_is_missing_is_said(table: ScoreTable, tmp_path: Path) -> None:
    for call in (len, ScoreTable.read, ScoreTable.manifest, ScoreTable.to_pandas):
        with pytest.raises(RunDirectoryError, match=r"no score table in .*nowhere: run the score stage first"):
            call(ScoreTable(tmp_path / "nowhere"))
    table.write_manifest(IDENTITY, rows=6)
    with pytest.raises(RunDirectoryError, match=r"has 4 of 6 rows; run the score stage again to finish it"):
        table.read()
    assert len(table.read(complete=False)) == 4
    empty = ScoreTable(tmp_path / "empty")
    empty.write_manifest({}, rows=6)
    with pytest.raises(RunDirectoryError, match="has no rows yet: run the score stage"):
        empty.read()


def test_doubled_rows_are_refused(table: ScoreTable) -> None:
    table.write_part(rows_of(1, 1))
    with pytest.raises(RunDirectoryError, match=r"rows appear more than once in .*remove the folder"):
        table.read(complete=False)


def test_rows_of_another_identity_are_refused_and_the_differences_named(table: ScoreTable) -> None:
    assert table.check_manifest(IDENTITY)
    other = {"scoring": {"scorer": "one_step", "one_step": {"utility": "mean_cosine"}}, "pool": "a1b2"}
    with pytest.raises(
        RunDirectoryError,
        match=r"another run: scoring\.one_step\.utility was 'raw', now 'mean_cosine'\. Choose another run_dir",
    ):
        table.check_manifest(other)
    # A folder without a stored row is nobody's.
    for part in table.folder.glob("part-*"):
        part.unlink()
    assert not table.check_manifest(other)


def test_facts_are_added_beside_the_identity(table: ScoreTable) -> None:
    table.add_to_manifest(scorer={"forward": 1}, anchors=13)
    assert table.manifest()["identity"] == IDENTITY
    assert table.manifest()["scorer"] == {"forward": 1}
    assert table.metadata.anchors == 13
    assert table.metadata.strategy == "one_step"


def test_metadata_survives_folders_and_parquet(table: ScoreTable, tmp_path: Path) -> None:
    assert table.metadata == METADATA
    assert ScoreMetadata.of(table.read()) == METADATA
    assert ScoreMetadata.of(table.read(columns=["row"])) == METADATA
    pq.write_table(table.read(), tmp_path / "all.parquet")
    assert ScoreMetadata.of(pq.read_table(tmp_path / "all.parquet")) == METADATA
    table.folder.parent.rename(tmp_path / "moved")
    assert ScoreTable.at(tmp_path / "moved").metadata == METADATA


def test_a_table_made_elsewhere_says_nothing_of_itself() -> None:
    assert ScoreMetadata.of(rows_of(0, 2)) == ScoreMetadata()
    assert ScoreMetadata.of(METADATA.attached_to(rows_of(0, 2))) == METADATA


def test_data_frames_and_datasets_hold_every_row_and_column(table: ScoreTable) -> None:
    frame, dataset = table.to_pandas(), table.to_dataset()
    assert list(frame.columns) == dataset.column_names == table.read().column_names
    assert frame["utility"].tolist() == dataset["utility"][:] == [0.0, 1.0, 2.0, 3.0]
    assert isinstance(dataset, datasets.Dataset)


def through_json(table: pa.Table) -> pa.Table:
    return pa.Table.from_pylist(json.loads(json.dumps(table.to_pylist())))


def through_pandas(table: pa.Table) -> pa.Table:
    return pa.Table.from_pandas(table.to_pandas())


def through_csv(table: pa.Table) -> pa.Table:
    return pa.Table.from_pandas(pandas.read_csv(io.StringIO(table.to_pandas().to_csv(index=False))))


def through_datasets(table: pa.Table) -> pa.Table:
    return datasets.Dataset.from_list(datasets.Dataset(table).to_list()).data.table


def through_nan(table: pa.Table) -> pa.Table:
    """As libraries do that have no empty cells."""
    numbers = table[P_VALUE_ANCHORS].to_pandas().to_numpy(dtype="float64")
    return pa.table({P_VALUE_ANCHORS: pa.array(numbers, from_pandas=False)})


@pytest.mark.parametrize("way", [through_json, through_pandas, through_csv, through_datasets, through_nan])
@pytest.mark.parametrize("looked_at", [[12, 12, 12], [None, 12, 12], [None, None, None]])
def test_the_number_of_anchors_behind_p_values_survives_every_format(way: Any, looked_at: list[int | None]) -> None:
    column = {P_VALUE_ANCHORS: pa.array(looked_at, pa.int32())}
    expected = max((count for count in looked_at if count), default=None)
    assert p_value_anchors(rows_of(0, 3, **column)) == expected
    assert p_value_anchors(way(rows_of(0, 3, **column))) == expected


def test_a_table_without_p_values_has_no_anchors_behind_them() -> None:
    assert p_value_anchors(rows_of(0, 3)) is None
