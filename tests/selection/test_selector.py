"""Score table to selection table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from ost_hf.errors import ConfigError, DataError, RunDirectoryError
from ost_hf.selection.config import SelectionConfig
from ost_hf.selection.kept import Selection
from ost_hf.selection.selector import select_rows


def scores(*utilities: float | None, order: list[int] | None = None) -> pa.Table:
    """A score table; a row without a utility has the status ``bad_image``."""
    records = [
        {"example_id": f"id{i}", "utility": utility, "status": "ok" if utility is not None else "bad_image"}
        for i, utility in enumerate(utilities)
    ]
    records = [records[i] for i in order] if order else records
    return pa.Table.from_pylist([{**record, "row": row} for row, record in enumerate(records)])


def kept(selection: Selection) -> set[str]:
    return set(selection.kept["example_id"].to_pylist())


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (SelectionConfig(), {"id1", "id3"}),
        (SelectionConfig(keep_ratio=0.25), {"id3"}),
        (SelectionConfig(keep_ratio=1.0), {"id0", "id1", "id2", "id3"}),
        (SelectionConfig(keep_ratio=0.01), {"id3"}),
        (SelectionConfig(keep_count=3), {"id0", "id1", "id3"}),
        (SelectionConfig(keep_count=99), {"id0", "id1", "id2", "id3"}),
        (SelectionConfig(min_utility=0.0), {"id0", "id1", "id3"}),
        (SelectionConfig(min_utility=0.15, keep_ratio=1.0), {"id1", "id3"}),
        (SelectionConfig(min_utility=0.0, keep_count=1), {"id3"}),
    ],
)
def test_best_rows_are_kept(config: SelectionConfig, expected: set[str]) -> None:
    assert kept(select_rows(scores(0.1, 0.2, -0.5, 0.9), config)) == expected


def test_dropped_copies_are_no_part_of_the_pool() -> None:
    table = scores(0.1, 0.2, 0.3, 0.4, None, None)
    status = pa.array(["ok"] * 4 + ["duplicate", "bad_image"])
    table = table.set_column(table.column_names.index("status"), "status", status)
    assert len(kept(select_rows(table, SelectionConfig(keep_ratio=0.7)))) == 4  # of five
    status = pa.array(["ok"] * 4 + ["anchor_overlap", "evaluation_overlap"])
    table = table.set_column(table.column_names.index("status"), "status", status)
    assert len(kept(select_rows(table, SelectionConfig(keep_ratio=0.7)))) == 3  # of four


def test_ties_are_broken_by_id_and_not_by_order() -> None:
    forward = select_rows(scores(0.5, 0.5, 0.5, 0.5), SelectionConfig(keep_count=2))
    backward = select_rows(scores(0.5, 0.5, 0.5, 0.5, order=[3, 1, 2, 0]), SelectionConfig(keep_count=2))
    assert kept(forward) == kept(backward) == {"id0", "id1"}


def test_each_row_says_why() -> None:
    table = select_rows(
        scores(0.1, None, -0.5, 0.9, 0.05), SelectionConfig(keep_count=1, min_utility=0.0)
    ).table.to_pylist()
    assert [record["reason"] for record in table] == [
        "ranked after the first 1",
        "not scored: bad_image",
        "utility below 0",
        "kept",
        "ranked after the first 1",
    ]
    assert [record["rank"] for record in table] == [2, None, 4, 1, 3]
    assert [record["row"] for record in table] == list(range(5))


def test_share_counts_rows_that_could_not_be_scored() -> None:
    assert len(kept(select_rows(scores(0.1, None, None, 0.9), SelectionConfig(keep_ratio=0.5)))) == 2
    assert len(kept(select_rows(scores(0.1, None, None, None), SelectionConfig(keep_ratio=0.5)))) == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (scores(0.1, 0.2), "nothing would be kept with .*the highest utility is 0.2"),
        (scores(None), "no row of the pool"),
    ],
)
def test_empty_selection_is_an_error(table: pa.Table, message: str) -> None:
    with pytest.raises(DataError, match=message):
        select_rows(table, SelectionConfig(min_utility=0.5))


@pytest.mark.parametrize("ratio", [0, -0.5, 1.5, 50, True, "half", float("nan")])
def test_ratio_outside_zero_to_one_is_refused(ratio: object) -> None:
    with pytest.raises(ConfigError, match=r"selection\.keep_ratio must be a number > 0 and <= 1, got"):
        SelectionConfig(keep_ratio=ratio)  # type: ignore[arg-type]


def test_ratio_and_count_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="not both"):
        SelectionConfig(keep_ratio=0.5, keep_count=3)
    with pytest.raises(ConfigError, match=r"selection\.keep_count must be an integer >= 1, got 0"):
        SelectionConfig(keep_count=0)


def test_table_is_read_back_with_its_settings(tmp_path: Path) -> None:
    selection = select_rows(scores(0.1, None), SelectionConfig(keep_count=1))
    assert selection.write(tmp_path / "run") == tmp_path / "run" / "selection.parquet"
    read = Selection.read(tmp_path / "run")
    assert read.table == selection.table
    assert read.metadata == selection.metadata
    assert read.metadata.settings["keep_count"] == 1
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["selection.json", "selection.parquet"]


def test_missing_or_foreign_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="run the select stage first"):
        Selection.read(tmp_path)
    pa.parquet.write_table(pa.table({"example_id": ["a"]}), tmp_path / "selection.parquet")
    with pytest.raises(RunDirectoryError, match=r"is no selection table: it lacks row, kept"):
        Selection.read(tmp_path)
