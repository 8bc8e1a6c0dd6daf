"""The kept rows of iterable training sets."""

from __future__ import annotations

import datasets
import pyarrow as pa
import pytest
from torch.utils.data import DataLoader, IterableDataset

from ost_hf.errors import DataError
from ost_hf.training.streams import filter_stream


@pytest.fixture
def selection() -> pa.Table:
    return pa.table(
        {
            "example_id": [f"row {number}" for number in range(6)],
            "row": list(range(6)),
            "utility": [0.1, 0.6, None, 0.4, 0.5, 0.2],
            "kept": [False, True, False, True, True, False],
        }
    )


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


def test_epoch_is_passed_on_to_a_stream_that_shuffles_by_it(selection: pa.Table) -> None:
    class Stream(IterableDataset):
        epoch = 0

        def __iter__(self):
            yield {"example_id": "row 1", "x": self.epoch}

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    stream = filter_stream(Stream(), selection)
    stream.set_epoch(3)
    assert list(stream) == [{"x": 3}]
