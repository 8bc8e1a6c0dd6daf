"""Matching a selection table with training sets of all kinds."""

from __future__ import annotations

from typing import Any

import datasets
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ost_hf.data.encoding import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.errors import DataError
from ost_hf.training.kept import filter_stream, find_kept

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
    from ost_hf.data.encoding import Encoder

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


def test_streams_are_filtered(selection: pa.Table) -> None:
    ids = selection["example_id"].to_pylist()

    class Stream(IterableDataset):
        def __iter__(self):
            yield from ({"example_id": example_id, "x": i} for i, example_id in enumerate(ids))

    assert [row["x"] for row in filter_stream(Stream(), selection)] == [1, 3, 4]
    assert [batch["x"].tolist() for batch in DataLoader(filter_stream(Stream(), selection), batch_size=2)] == [
        [1, 3],
        [4],
    ]
    stream = datasets.Dataset.from_dict({"example_id": ids, "x": list(range(6))}).to_iterable_dataset()
    assert [row["x"] for row in filter_stream(stream, selection)] == [1, 3, 4]


def test_stream_without_ids_is_an_error(selection: pa.Table) -> None:
    class Stream(IterableDataset):
        def __iter__(self):
            yield {"x": 1}

    with pytest.raises(DataError, match="need an 'example_id' field to be matched with a selection; this one has x"):
        list(filter_stream(Stream(), selection))


def test_shard_of_a_stream_may_hold_no_row_that_is_known(selection: pa.Table) -> None:
    ids = [*selection["example_id"].to_pylist(), *(f"later {number}" for number in range(12))]
    rows = datasets.Dataset.from_dict({"example_id": ids, "x": list(range(len(ids)))})
    kept = [row["x"] for row in filter_stream(rows.to_iterable_dataset(), selection)]
    shards = filter_stream(rows.to_iterable_dataset(num_shards=3), selection)
    loader = DataLoader(shards, batch_size=None, num_workers=3)
    assert sorted(row["x"] for row in loader) == kept == [1, 3, 4]


def test_stream_of_other_ids_is_an_error(selection: pa.Table) -> None:
    rows = [{"example_id": f"mine {number}", "x": number} for number in range(6)]

    class Stream(IterableDataset):
        def __iter__(self):
            yield from rows

    for stream in (Stream(), datasets.Dataset.from_list(rows).to_iterable_dataset()):
        with pytest.raises(DataError, match="the first 6 rows of the training set have ids that the selection does"):
            list(filter_stream(stream, selection))


def test_ids_that_are_numbers_are_matched_as_text(selection: pa.Table) -> None:
    numbered = selection.set_column(selection.column_names.index("example_id"), "example_id", pa.array(range(6)))
    stream = datasets.Dataset.from_dict({"example_id": list(range(6)), "x": list(range(6))}).to_iterable_dataset()
    kept = [row["row"] for row in numbered.to_pylist() if row["kept"]]
    assert [row["x"] for row in filter_stream(stream, numbered)] == sorted(kept)


def test_table_that_keeps_nothing_is_an_error(selection: pa.Table) -> None:
    nothing = selection.set_column(3, "kept", [[False] * 6])
    with pytest.raises(DataError, match="keeps no row"):
        find_kept(datasets.Dataset.from_list(ROWS), nothing)
