"""Matching a selection table with training sets of all kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
import torch
from torch.utils.data import TensorDataset

from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.errors import DataError
from ost_hf.selection.kept import Kept, Selection, find_kept

ROWS = [{"prompt": f"p{i}", "completion": f"c{i}"} for i in range(6)]


@pytest.fixture
def selection() -> pa.Table:
    ids = Rows(datasets.Dataset.from_list(ROWS)).example_ids
    return pa.table(
        {
            "example_id": ids,
            "row": list(range(6)),
            "utility": [0.1, 0.6, None, 0.4, 0.5, 0.2],
            "kept": [False, True, False, True, True, False],
        }
    )


def test_rows_are_found_by_content_in_any_order(selection: pa.Table) -> None:
    shuffled = datasets.Dataset.from_list([ROWS[i] for i in (5, 4, 3, 2, 1, 0)])
    kept = find_kept(shuffled, selection)
    assert [shuffled[index]["prompt"] for index in kept.indices] == ["p1", "p4", "p3"]
    assert kept.utilities == [0.6, 0.5, 0.4]
    assert kept.pool_size == 6


def test_without_a_utility_column_no_utility_is_made_up(selection: pa.Table) -> None:
    kept = find_kept(datasets.Dataset.from_list(ROWS), selection.drop_columns("utility"))
    assert kept.indices == [1, 3, 4]
    assert kept.utilities is None
    assert kept.without({3}).utilities is None


def test_rows_are_found_in_an_encoded_set_that_lacks_others(selection: pa.Table, processor: Any) -> None:
    rows = Rows(datasets.Dataset.from_list([ROWS[i] for i in (4, 3, 1)]))
    kept = find_kept(EncodedDataset(rows, Encoder(processor)), selection)
    assert kept.indices == [2, 0, 1]


def test_rows_are_found_by_an_id_column(selection: pa.Table) -> None:
    ids = selection["example_id"].to_pylist()
    tokens = datasets.Dataset.from_dict({"example_id": ids[::-1], "input_ids": [[1]] * 6, "labels": [[1]] * 6})
    assert find_kept(tokens, selection).indices == [4, 1, 2]


def test_set_without_ids_is_matched_by_position_if_the_length_agrees(selection: pa.Table, caplog) -> None:
    assert find_kept(TensorDataset(torch.zeros(6)), selection).indices == [1, 4, 3]
    assert "matched by position" in caplog.text
    with pytest.raises(DataError, match="5 rows and no ids, the selection table is of 6"):
        find_kept(TensorDataset(torch.zeros(5)), selection)


def test_other_text_of_the_same_length_is_not_matched_by_position(selection: pa.Table) -> None:
    other = datasets.Dataset.from_list([{"prompt": f"q{i}", "completion": f"c{i}"} for i in range(6)])
    with pytest.raises(DataError, match="3 of 3 kept rows are not in the training set"):
        find_kept(other, selection)


def test_rows_of_another_tokenizer_are_matched_by_position(selection: pa.Table, caplog) -> None:
    tokens = datasets.Dataset.from_dict({"input_ids": [[i] for i in range(6)], "labels": [[i] for i in range(6)]})
    assert find_kept(tokens, selection).indices == [1, 4, 3]
    assert "matched by position" in caplog.text


def test_kept_row_that_is_missing_is_an_error(selection: pa.Table) -> None:
    with pytest.raises(DataError, match="1 of 3 kept rows are not in the training set"):
        find_kept(datasets.Dataset.from_list([ROWS[i] for i in (0, 1, 3)]), selection)


def test_doubled_id_is_an_error(selection: pa.Table) -> None:
    ids = selection["example_id"].to_pylist()
    with pytest.raises(DataError, match="1 rows of the training set share an 'example_id'"):
        find_kept(datasets.Dataset.from_dict({"example_id": [*ids[:5], ids[0]], "x": [0] * 6}), selection)


def test_table_that_keeps_nothing_is_an_error(selection: pa.Table) -> None:
    nothing = selection.set_column(3, "kept", [[False] * 6])
    with pytest.raises(DataError, match="keeps no row"):
        find_kept(datasets.Dataset.from_list(ROWS), nothing)


def test_without_some_places_all_else_stays_in_order() -> None:
    kept = Kept([4, 1, 3], [0.5, 0.4, 0.3], ["e", "b", "d"], 6).without({1})
    assert kept == Kept([4, 3], [0.5, 0.3], ["e", "d"], 6)
    with pytest.raises(DataError, match="no kept row can be used by the target"):
        kept.without({4, 3})


@pytest.mark.parametrize("kind", ["list", "dataset", "rows", "file"])
def test_selection_gives_its_rows_of_a_pool_of_any_kind(selection: pa.Table, kind: str, tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.to_json(tmp_path / "pool.jsonl")
    pool = {"list": ROWS, "dataset": dataset, "rows": Rows(dataset), "file": str(tmp_path / "pool.jsonl")}[kind]
    assert Selection(selection).rows(pool).to_list() == [ROWS[i] for i in (1, 3, 4)]
    with pytest.raises(DataError, match="1 of 3 kept rows are not in the training set"):
        Selection(selection).rows(ROWS[:4])


def test_kept_row_without_a_utility_comes_last_and_leaves_nothing_to_weigh_by(selection: pa.Table) -> None:
    kept = pa.array([False, True, True, True, True, False])
    table = selection.set_column(selection.column_names.index("kept"), "kept", kept)
    found = find_kept(datasets.Dataset.from_list(ROWS), table)
    assert found.indices == [1, 4, 3, 2]
    assert found.utilities is None


def test_table_without_places_is_matched_by_ids_alone(selection: pa.Table) -> None:
    table = selection.set_column(1, "row", pa.nulls(6, pa.int64()))
    assert find_kept(datasets.Dataset.from_list(ROWS), table).indices == [1, 4, 3]
    with pytest.raises(DataError, match="no ids, and the selection table no places in a column 'row'"):
        find_kept(TensorDataset(torch.zeros(6)), table)
