"""The kept rows of an iterable dataset."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import datasets
import pyarrow as pa
from torch.utils.data import IterableDataset, get_worker_info

from ost_hf.data.sources import ID_COLUMN
from ost_hf.errors import DataError
from ost_hf.parallel import state
from ost_hf.selection.kept import kept_records
from ost_hf.selection.marks import Marks
from ost_hf.training.marks import marked

logger = logging.getLogger(__name__)

# A stream that begins with so many rows that were not scored is another dataset.
_STRANGERS = 1000


def filter_stream(dataset: Any, selection: pa.Table, weighted: bool = False) -> Any:
    """The kept rows of an iterable dataset, in its own order.

    Args:
        dataset: The stream.
        selection: A selection table.
        weighted: Whether rows are to bring their weights.

    Raises:
        DataError: While iterating, if a row has no ``example_id``, or the first thousand none that it knows (where one
            reader has all rows: of several a shard may hold none).
    """
    records = {str(record[ID_COLUMN]): record for record in kept_records(selection)}
    is_kept = _IsKept(set(records), set(map(str, selection[ID_COLUMN].to_pylist())))
    marks = {name: Marks.of(record) for name, record in records.items()}
    mark = _Mark(marks, weighted) if weighted or any(each.masked for each in marks.values()) else None
    if isinstance(dataset, datasets.IterableDataset):
        kept = dataset.filter(is_kept)
        return kept if mark is None else kept.map(mark)
    return KeptStream(dataset, is_kept, mark)


class KeptStream(IterableDataset[Any]):
    """An iterable dataset's rows whose ``example_id`` is kept, with what else the selection says of them."""

    def __init__(self, dataset: Iterable[Any], is_kept: _IsKept, mark: _Mark | None = None):
        self.dataset, self._is_kept, self._mark = dataset, is_kept, mark

    def __iter__(self) -> Iterator[Any]:
        for row in self.dataset:
            if self._is_kept(row):
                row = row if self._mark is None else self._mark(row)
                # The id has done its work; a collator would not know what to do with text.
                yield {key: value for key, value in row.items() if key != ID_COLUMN}

    def set_epoch(self, epoch: int) -> None:
        """Passes the epoch on to a dataset that shuffles by it."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)


class _Mark:
    """Puts on a row of a stream what the selection says of it."""

    def __init__(self, marks: dict[str, Marks], weighted: bool):
        self.marks, self.weighted = marks, weighted

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return marked(row, self.marks[str(row[ID_COLUMN])], self.weighted)


class _IsKept:
    """Whether a row of a stream is kept; a stream of other ids would be read to its end and leave nothing."""

    def __init__(self, kept: set[str], known: set[str]):
        self.kept, self.known = kept, known
        self._strangers: int | None = 0  # rows so far, as long as none was known

    def __call__(self, row: dict[str, Any]) -> bool:
        if ID_COLUMN not in row:
            raise DataError(
                f"rows of an iterable training set need an {ID_COLUMN!r} field to be matched with a selection; "
                f"this one has {', '.join(row)}"
            )
        example_id = str(row[ID_COLUMN])
        if self._strangers is not None:
            self._strangers = None if example_id in self.known else self._strangers + 1
            if self._strangers == min(_STRANGERS, len(self.known)):
                found = (
                    f"the first {self._strangers} rows of the training set have ids that the selection does not know, "
                    f"such as {example_id}: it was made of another dataset, or without the id_column that these are of"
                )
                worker = get_worker_info()
                if state().num_processes == 1 and (worker is None or worker.num_workers == 1):
                    raise DataError(found)
                logger.warning("a reader's share of a stream: %s", found)
                self._strangers = None
        return example_id in self.kept
