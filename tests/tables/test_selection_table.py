"""The selection table: kept rows, how they were chosen, and what survives folders and other formats."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ost_hf.errors import RunDirectoryError
from ost_hf.selection.kept import Selection
from ost_hf.tables.selection_table import SelectionMetadata, SelectionTable, selection_file, selection_schema

METADATA = SelectionMetadata({"keep_ratio": 0.5, "order": "top"}, "highest utility first")
RECORDS = [
    {"example_id": "a", "row": 0, "utility": 0.5, "rank": 1, "kept": True, "reason": "kept", "verdict": "useful"},
    {"example_id": "b", "row": 1, "utility": -2.0, "rank": 3, "kept": False, "reason": "toxic", "verdict": "toxic"},
    {"example_id": "c", "row": 2, "utility": None, "rank": None, "kept": False, "reason": "not scored: too_long",
     "verdict": None},
    {"example_id": "d", "row": 3, "utility": 0.1, "rank": 2, "kept": True, "reason": "kept", "verdict": "uncertain"},
]  # fmt: skip
TABLE = pa.Table.from_pylist(RECORDS, schema=selection_schema("verdict"))


@pytest.mark.parametrize("cls", [SelectionTable, Selection])
def test_table_and_metadata_survive_a_folder(cls: type[SelectionTable], tmp_path: Path) -> None:
    made = cls(TABLE, METADATA)
    assert made.write(tmp_path / "run") == tmp_path / "run" / "selection.parquet"
    (tmp_path / "run").rename(tmp_path / "moved")
    for path in (tmp_path / "moved", str(tmp_path / "moved" / "selection.parquet")):
        read = cls.read(path)
        assert isinstance(read, cls)
        assert read.table.equals(TABLE)
        assert read.metadata == METADATA
        assert repr(read) == repr(made)


def test_what_was_found_stands_beside_the_table_for_people(tmp_path: Path) -> None:
    SelectionTable(TABLE, METADATA).write(tmp_path)
    assert json.loads((tmp_path / "selection.json").read_text()) == {
        "settings": {"keep_ratio": 0.5, "order": "top"},
        "explanation": "highest utility first",
        "rows": 4,
        "kept": 2,
        "verdicts": {"useful": 1, "toxic": 1, "uncertain": 1},
    }
    # The table is plain Parquet, and says the same without what stands beside it.
    (tmp_path / "selection.json").unlink()
    assert SelectionTable.read(tmp_path).metadata == SelectionMetadata()
    assert pq.read_table(tmp_path / "selection.parquet").to_pylist() == RECORDS


def test_several_selections_stand_in_one_folder(tmp_path: Path) -> None:
    SelectionTable(TABLE, METADATA).write(tmp_path)
    other = SelectionTable(TABLE, SelectionMetadata({"order": "setwise"}, "each by what it adds"))
    assert other.write(tmp_path / "setwise.parquet") == tmp_path / "setwise.parquet"
    assert SelectionTable.read(tmp_path).metadata == METADATA
    assert SelectionTable.read(tmp_path / "setwise.parquet").metadata == other.metadata
    assert selection_file("~/x.parquet") == Path.home() / "x.parquet"


def test_it_prints_how_much_is_kept_and_why() -> None:
    assert repr(Selection(TABLE, METADATA)) == "Selection: kept 2 of 4 rows: highest utility first"
    assert repr(SelectionTable(TABLE)) == "SelectionTable: kept 2 of 4 rows"
    many = TABLE.take([0, 1] * 1500)
    assert repr(SelectionTable(many)) == "SelectionTable: kept 1,500 of 3,000 rows"


def test_counts_kept_rows_and_verdicts() -> None:
    selection = SelectionTable(TABLE, METADATA)
    assert (len(selection), selection.kept_count, selection.explanation) == (4, 2, "highest utility first")
    assert selection.kept["example_id"].to_pylist() == ["a", "d"]
    assert selection.verdicts == {"useful": 1, "toxic": 1, "uncertain": 1}
    without = SelectionTable(TABLE.drop_columns(["verdict"]))
    assert without.verdicts == {}
    nothing = SelectionTable(TABLE.slice(0, 0))
    assert (len(nothing), nothing.kept_count) == (0, 0)


def test_data_frames_and_datasets_hold_every_row_and_column() -> None:
    frame, dataset = SelectionTable(TABLE).to_pandas(), SelectionTable(TABLE).to_dataset()
    assert isinstance(dataset, datasets.Dataset)
    assert dataset.to_list() == RECORDS
    assert list(frame.columns) == dataset.column_names
    assert frame["kept"].tolist() == [True, False, False, True]


def test_a_table_made_elsewhere_needs_three_columns(tmp_path: Path) -> None:
    few = TABLE.select(["example_id", "row", "kept"])
    assert SelectionTable(few).kept_count == 2
    assert SelectionTable(pa.Table.from_pandas(TABLE.to_pandas())).kept.to_pylist() == [RECORDS[0], RECORDS[3]]
    with pytest.raises(RunDirectoryError, match=r"^this is no selection table: it lacks row, kept$"):
        SelectionTable(TABLE.select(["example_id"]))
    pq.write_table(TABLE.select(["example_id", "row"]), tmp_path / "other.parquet")
    with pytest.raises(RunDirectoryError, match=r"other\.parquet: this is no selection table: it lacks kept"):
        SelectionTable.read(tmp_path / "other.parquet")


def test_a_missing_table_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        RunDirectoryError, match=r"no selection table at .*/run/selection\.parquet: run the select stage"
    ):
        SelectionTable.read(tmp_path / "run")
