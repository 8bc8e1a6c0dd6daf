"""From a selection table to rows of a dataset.

A table and a dataset meet by ``example_id``: the set may be shuffled, filtered, or encoded for another tokenizer than
the proxy's. Only a set without any id is matched by position, and then its length must agree.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from ost_hf.data.config import DatasetConfig
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.data.sources import ID_COLUMN, rows_from
from ost_hf.errors import DataError
from ost_hf.selection.marks import COLUMNS as MARKS
from ost_hf.selection.marks import Marks
from ost_hf.tables.selection_table import WEIGHT, SelectionTable

logger = logging.getLogger(__name__)


class Selection(SelectionTable):
    """A selection table that finds its rows in a dataset.

    Example:
        >>> kept = ost_hf.select(scores, keep_ratio=0.3)
        >>> kept  # doctest: +SKIP
        Selection: kept 900 of 3,000 rows: ...
        >>> kept.rows(pool).push_to_hub("me/kept")  # doctest: +SKIP
    """

    def rows(self, pool: Any) -> datasets.Dataset:
        """The kept rows of a pool, in the pool's order and with the pool's columns.

        Args:
            pool: Whatever :func:`ost_hf.data.sources.rows_from` takes.

        Raises:
            DataError: If kept rows are not in the pool.
        """
        dataset = pool if isinstance(pool, datasets.Dataset) else rows_from(pool)
        indices = sorted(find_kept(dataset, self.table).indices)
        return (dataset.dataset if isinstance(dataset, Rows) else dataset).select(indices)


def read_selection(path: str | Path) -> Selection:
    """The selection of a run directory, or of a selection table's file.

    Raises:
        RunDirectoryError: If there is none.
    """
    found = Selection.read(path)
    assert isinstance(found, Selection)
    return found


@dataclass
class Kept:
    """The kept rows of one training set: places in it, in the order of the selection's rank.

    Their utilities are ``None`` where the selection table lacks one. ``marks`` are what else the table says of each.
    """

    indices: list[int]
    utilities: list[float] | None
    example_ids: list[str]
    pool_size: int
    marks: list[Marks] = field(default_factory=list)

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
            [self.marks[i] for i in keep] if self.marks else [],
        )


def kept_records(selection: pa.Table) -> list[dict[str, Any]]:
    """The kept rows of a selection table, best first; a table without utilities keeps its order."""
    known = (ID_COLUMN, "row", "utility", "rank", "kept", *MARKS)
    columns = [name for name in known if name in selection.column_names]
    records = [record for record in selection.select(columns).to_pylist() if record["kept"]]
    if not records:
        raise DataError("the selection table keeps no row")
    if "rank" in columns and all(record["rank"] is not None for record in records):
        records.sort(key=lambda record: (record["rank"], record[ID_COLUMN]))
    elif "utility" in columns:
        records.sort(key=lambda record: (-_number(record["utility"]), record[ID_COLUMN]))
    return records


def check_weights(selection: pa.Table) -> None:
    """Raises ``DataError`` unless kept rows have weights by which a loss can be weighed."""
    if WEIGHT not in selection.column_names:
        raise DataError(
            f"weighted_loss needs the column {WEIGHT}, and the selection has none: select with weighted_loss=True, "
            "from scores with a second look"
        )
    weights = [record[WEIGHT] for record in kept_records(selection)]
    if not all(isinstance(weight, float) and 0 <= weight <= 1 for weight in weights):
        raise DataError(f"weighted_loss: the column {WEIGHT} must hold a number in [0, 1] for each kept row")
    if not any(weights):
        raise DataError(f"weighted_loss: the column {WEIGHT} is 0 for every kept row; nothing could be learnt")


def _number(utility: float | None) -> float:
    """A utility to sort by; a row without one, in a table made elsewhere, comes last."""
    return float("-inf") if utility is None else utility


def find_kept(dataset: Any, selection: pa.Table) -> Kept:
    """Finds the kept rows of a selection table in a map-style training set.

    Args:
        dataset: ``Rows``, an ``EncodedDataset``, a ``datasets.Dataset``, or any dataset with a length.
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
        indices = [record["row"] for record in records]
        if None in indices:
            raise DataError(
                f"the training set has no ids, and the selection table no places in a column 'row': give the training "
                f"set an {ID_COLUMN!r} column"
            )
        logger.warning("the training set has no ids that the selection knows: its rows are matched by position")
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
    utilities = [record["utility"] for record in records if record.get("utility") is not None]
    whole = utilities if len(utilities) == len(records) else None
    ids_of_kept, marks = [record[ID_COLUMN] for record in records], [Marks.of(record) for record in records]
    return Kept(indices, whole, ids_of_kept, len(selection), marks)


def _ids_of(dataset: Any, known: set[str]) -> list[str] | None:
    """The dataset's ids, or ``None`` where it has none.

    Tokenised rows are those of another tokenizer than the proxy's as a rule; hashes that the table does not
    know are no ids then. Text that the table does not know is another dataset's.
    """
    if isinstance(dataset, EncodedDataset):
        return dataset.rows.example_ids
    if isinstance(dataset, Rows):
        return dataset.example_ids
    if not isinstance(dataset, datasets.Dataset):
        return None
    if ID_COLUMN in dataset.column_names:
        return [str(value) for value in dataset.with_format(None)[ID_COLUMN]]
    try:
        rows = Rows(dataset, DatasetConfig(path="in memory"))
    except DataError:  # columns of the user's own: there is nothing to make an id of
        return None
    return None if rows.layout == "tokenized" and known.isdisjoint(rows.example_ids) else rows.example_ids
