"""Rows as Python has them to a ``datasets.Dataset``: what no column can hold is noted at its own row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import datasets
import pyarrow as pa

from ost_hf.data.example import RowError
from ost_hf.tables.statuses import BAD_ROW

Record = dict[str, Any]
# Of rows that nobody can read: why. Other rows have nothing in this column.
UNREADABLE = "ost_unreadable"
# Lists and objects within one another, at most: what is deeper is no conversation, and recursion ends somewhere.
MAX_DEPTH = 64
_AT_ONCE = 1000
_NOT_ARROW = (pa.ArrowException, OverflowError, RecursionError, TypeError, ValueError)


def check_record(record: Mapping[str, Any]) -> Record:
    """A row as Arrow can hold it: whole numbers beyond 64 bits are text.

    Raises:
        RowError: If it is nested too deep, or holds text that is none (``bad_row``).
    """
    return {str(name): _checked(value, MAX_DEPTH) for name, value in record.items()}


def _checked(value: Any, depth: int) -> Any:
    if depth < 0:
        raise RowError(BAD_ROW, f"the row is nested deeper than {MAX_DEPTH} lists and objects")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise RowError(BAD_ROW, "a text holds half of a surrogate pair, which is no character") from error
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _checked(item, depth - 1) for name, item in value.items()}
    return [_checked(item, depth - 1) for item in value] if isinstance(value, (list, tuple)) else value


def checked_records(records: Iterable[Any]) -> Iterator[Record]:
    """Rows as Arrow can hold them; in place of one that it cannot, why not."""
    for record in records:
        try:
            yield check_record(record)
        except RowError as error:
            yield {UNREADABLE: error.detail}


def features_of(records: Iterable[Record]) -> datasets.Features:
    """The types of columns, from all rows; a column of unlike types holds JSON. Texts stay texts, whatever they say."""
    types: dict[str, pa.DataType | None] = {}
    rows = iter(records)
    while batch := list(islice(rows, _AT_ONCE)):
        for name in dict.fromkeys(name for record in batch for name in record):
            known = types.get(name, pa.null())
            if known is not None:
                types[name] = _joined(known, [record.get(name) for record in batch])
    return datasets.Features({name: _feature(found) for name, found in types.items()})


def _joined(known: pa.DataType, values: list[Any]) -> pa.DataType | None:
    """A type for the values that were seen before and these; ``None`` if there is none."""
    try:
        schemas = [pa.schema([("it", each)]) for each in (known, pa.array(values).type)]
        return pa.unify_schemas(schemas, promote_options="permissive").field("it").type
    except _NOT_ARROW:
        return None


def _feature(found: pa.DataType | None) -> Any:
    if found is None or (pa.types.is_struct(found) and not found.num_fields):
        return datasets.Json()
    return datasets.Features.from_arrow_schema(pa.schema([("it", found)]))["it"]


def dataset_of(records: list[Mapping[str, Any]]) -> datasets.Dataset:
    """Rows in memory as a dataset.

    ``datasets`` itself refuses all of them for one that is unlike the others.
    """
    given = [dict(record) for record in records]
    try:
        return datasets.Dataset.from_list(given)
    except _NOT_ARROW:
        rows = list(checked_records(given))
    names = dict.fromkeys(name for row in rows for name in row)
    return datasets.concatenate_datasets([_column(name, [row.get(name) for row in rows]) for name in names], axis=1)


def _column(name: str, values: list[Any]) -> datasets.Dataset:
    try:
        return datasets.Dataset.from_dict({name: values})
    except _NOT_ARROW:
        return datasets.Dataset.from_dict({name: values}, features=datasets.Features({name: datasets.Json()}))
