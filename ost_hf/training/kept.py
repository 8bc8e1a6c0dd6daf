"""From a selection table to rows of the training set.

A table and a training set meet by ``example_id``: the set may be shuffled, filtered, or encoded for another
tokenizer than the proxy's. Only a set without any id is matched by position, and then its length must agree.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, get_worker_info

from ost_hf.data.config import DatasetConfig
from ost_hf.data.encoding import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.errors import DataError
from ost_hf.files import write_whole
from ost_hf.parallel import gather_objects, is_main, share, state

logger = logging.getLogger(__name__)

ID_COLUMN = "example_id"

# A stream that begins with so many rows that were not scored is another dataset.
_STRANGERS = 1000


@dataclass
class Kept:
    """The kept rows of one training set: places in it, in the order of the selection's rank.

    Their utilities are ``None`` where the selection table has none.
    """

    indices: list[int]
    utilities: list[float] | None
    example_ids: list[str]
    pool_size: int

    def without(self, places: set[int]) -> Kept:
        """The same without some places."""
        keep = [i for i, index in enumerate(self.indices) if index not in places]
        if not keep:
            raise DataError("no kept row can be used by the target; rows_not_used.json names the reasons")
        return Kept(
            [self.indices[i] for i in keep],
            None if self.utilities is None else [self.utilities[i] for i in keep],
            [self.example_ids[i] for i in keep],
            self.pool_size,
        )


def kept_records(selection: pa.Table) -> list[dict[str, Any]]:
    """The kept rows of a selection table, best first; a table without utilities keeps its order."""
    columns = [name for name in (ID_COLUMN, "row", "utility", "rank", "kept") if name in selection.column_names]
    records = [record for record in selection.select(columns).to_pylist() if record["kept"]]
    if not records:
        raise DataError("the selection table keeps no row")
    if "rank" in columns and all(record["rank"] is not None for record in records):
        records.sort(key=lambda record: (record["rank"], record[ID_COLUMN]))
    elif "utility" in columns:
        records.sort(key=lambda record: (-record["utility"], record[ID_COLUMN]))
    return records


def find_kept(dataset: Any, selection: pa.Table) -> Kept:
    """Finds the kept rows of a selection table in a map-style training set.

    Args:
        dataset: An ``EncodedDataset``, a ``datasets.Dataset``, or any dataset with a length.
        selection: A selection table.

    Raises:
        DataError: If kept rows are not in the dataset, or a dataset without ids has another length.
    """
    records = kept_records(selection)
    ids = _ids_of(dataset, set(selection[ID_COLUMN].to_pylist()))
    if ids is None:
        if len(dataset) != len(selection):
            raise DataError(
                f"the training set has {len(dataset)} rows and no ids, the selection table is of {len(selection)}; "
                f"give the training set an {ID_COLUMN!r} column, or train on the rows that were scored"
            )
        logger.warning("the training set has no ids that the selection knows: its rows are matched by position")
        indices = [record["row"] for record in records]
    else:
        places = {example_id: index for index, example_id in enumerate(ids)}
        if len(places) != len(ids):
            raise DataError(
                f"{len(ids) - len(places)} rows of the training set share an {ID_COLUMN!r} with another one"
            )
        missing = [record[ID_COLUMN] for record in records if record[ID_COLUMN] not in places]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(records)} kept rows are not in the training set, such as {missing[0]}; "
                f"the selection was made of another dataset, or with an id_column: name that column {ID_COLUMN!r} here"
            )
        indices = [places[record[ID_COLUMN]] for record in records]
    utilities = [record["utility"] for record in records] if "utility" in selection.column_names else None
    return Kept(indices, utilities, [record[ID_COLUMN] for record in records], len(selection))


def filter_stream(dataset: Any, selection: pa.Table) -> Any:
    """The kept rows of an iterable dataset, in its own order.

    Raises:
        DataError: While iterating, if a row has no ``example_id``, or the first thousand none that it knows (where one
            reader has all rows: of several a shard may hold none).
    """
    kept = {str(record[ID_COLUMN]) for record in kept_records(selection)}
    is_kept = _IsKept(kept, set(map(str, selection[ID_COLUMN].to_pylist())))
    if isinstance(dataset, datasets.IterableDataset):
        return dataset.filter(is_kept)
    return KeptStream(dataset, is_kept)


class KeptStream(IterableDataset[Any]):
    """An iterable dataset's rows whose ``example_id`` is kept."""

    def __init__(self, dataset: Iterable[Any], is_kept: _IsKept):
        self.dataset, self._is_kept = dataset, is_kept

    def __iter__(self) -> Iterator[Any]:
        for row in self.dataset:
            if self._is_kept(row):
                # The id has done its work; a collator would not know what to do with text.
                yield {key: value for key, value in row.items() if key != ID_COLUMN}

    def set_epoch(self, epoch: int) -> None:
        """Passes the epoch on to a dataset that shuffles by it."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)


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


def drop_unusable(dataset: EncodedDataset, kept: Kept, report: Path, num_workers: int) -> Kept:
    """Leaves out kept rows that cannot be encoded for the target, and names them in ``report``.

    The processes share the rows. The proxy's tokenizer may have had room for a row that the target's
    has not.
    """
    unusable = _unusable(dataset, kept.indices, num_workers)
    if unusable:
        logger.warning(
            "%d of %d kept rows cannot be used by the target, such as row %d (%s: %s); %s names them all",
            len(unusable), len(kept.indices), unusable[0]["row"], unusable[0]["status"], unusable[0]["detail"], report,
        )  # fmt: skip
    if is_main() and (unusable or report.exists()):
        text = json.dumps(unusable, indent=2) + "\n"
        write_whole(report, lambda path: path.write_text(text))
    return kept.without({status["row"] for status in unusable}) if unusable else kept


def usable_part(dataset: EncodedDataset, name: str, num_workers: int) -> Dataset[Any]:
    """An evaluation set without the rows that cannot be encoded, which would end a training at its first evaluation.

    Args:
        dataset: The set.
        name: What the log calls it.
        num_workers: Processes that read it.

    Raises:
        DataError: If no row can be used.
    """
    unusable = _unusable(dataset, list(range(len(dataset))), num_workers)
    if not unusable:
        return dataset
    first = unusable[0]
    reason = f"such as row {first['row']} ({first['status']}: {first['detail']})"
    if len(unusable) == len(dataset):
        raise DataError(f"no row of {name} can be used, {reason}")
    logger.warning("%d of %d rows of %s cannot be used and are left out, %s", len(unusable), len(dataset), name, reason)
    rows = {status["row"] for status in unusable}
    return Subset(dataset, [row for row in range(len(dataset)) if row not in rows])


def _unusable(dataset: EncodedDataset, rows: list[int], num_workers: int) -> list[dict[str, Any]]:
    """Those of some rows that cannot be encoded, by row; the processes share the work, and all get the answer."""
    loader = DataLoader(_Statuses(dataset, share(rows)), batch_size=None, num_workers=num_workers)
    return sorted(gather_objects([status for status in loader if status is not None]), key=lambda s: s["row"])


class _Statuses(Dataset[Any]):
    def __init__(self, dataset: EncodedDataset, rows: list[int]):
        self.dataset, self.rows = dataset, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        encoded = self.dataset.encode(self.rows[index])
        if encoded.features is not None:
            return None
        return {
            "row": encoded.row,
            ID_COLUMN: encoded.example_id,
            "status": encoded.status,
            "detail": encoded.detail,
        }


def _ids_of(dataset: Any, known: set[str]) -> list[str] | None:
    """The dataset's ids, or ``None`` where it has none.

    Tokenised rows are those of another tokenizer than the proxy's as a rule; hashes that the table does not
    know are no ids then. Text that the table does not know is another dataset's.
    """
    if isinstance(dataset, EncodedDataset):
        return dataset.rows.example_ids
    if not isinstance(dataset, datasets.Dataset):
        return None
    if ID_COLUMN in dataset.column_names:
        return [str(value) for value in dataset.with_format(None)[ID_COLUMN]]
    try:
        rows = Rows(dataset, DatasetConfig(path="in memory"))
    except DataError:  # columns of the user's own: there is nothing to make an id of
        return None
    return None if rows.layout == "tokenized" and known.isdisjoint(rows.example_ids) else rows.example_ids
