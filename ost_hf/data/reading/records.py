"""Rows as Python has them to a ``datasets.Dataset``: what no column can hold is noted at its own row.

A column of unlike values (texts and numbers, texts and lists) is one of JSON. ``datasets`` would read the text "007" in
it as the number 7, and a float of 16 digits as one of ten: such columns are written and read here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import islice
from typing import Any

import datasets
import numpy as np
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
        raise RowError(BAD_ROW, f"it is nested deeper than {MAX_DEPTH} lists and objects")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise RowError(BAD_ROW, "a text holds half of a surrogate pair, which is no character") from error
    if isinstance(value, np.floating):  # the number that was written in its few digits
        return float(str(value))
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _checked(item, depth - 1) for name, item in value.items()}
    return [_checked(item, depth - 1) for item in value] if isinstance(value, (list, tuple)) else value


def checked_records(records: Iterable[tuple[str, Any]]) -> Iterator[Record]:
    """Rows, each with its place, as Arrow can hold them; instead of one that it cannot, why not."""
    for place, record in records:
        try:
            yield check_record(record)
        except RowError as error:
            yield {UNREADABLE: f"{place}: {error.detail}"}


def exact_float(digits: str) -> float | str:
    """A number as a float, if that is the same; else as it is written."""
    number = float(digits)
    return number if math.isfinite(number) and Decimal(digits) == Decimal(repr(number)) else digits


def with_json(record: Mapping[str, Any], features: Mapping[str, Any]) -> Record:
    """A row whose cells in columns of JSON are JSON texts, as they are stored."""
    return {
        name: _json_text(value) if isinstance(features.get(name), datasets.Json) else value
        for name, value in record.items()
    }


def _json_text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    # `datasets` looks into what it stores, and takes a float of many digits for another.
    value = repr(value) if isinstance(value, float) and not value.is_integer() else value
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode(errors="backslashreplace")
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else str(value)


def from_json_columns(value: Any, feature: Any) -> Any:
    """A cell whose JSON, as it is stored, is read: at any depth of a column's type."""
    if value is None:
        return None
    if isinstance(feature, datasets.Json):
        try:
            return json.loads(value, parse_float=exact_float) if isinstance(value, str) else value
        except json.JSONDecodeError:  # `datasets` stores a text such as 007 as it is
            return value
    if isinstance(feature, (datasets.List, datasets.LargeList)) and isinstance(value, list):
        return [from_json_columns(item, feature.feature) for item in value]
    if isinstance(feature, dict) and isinstance(value, dict):
        return {name: from_json_columns(item, feature.get(name)) for name, item in value.items()}
    return value


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
    except Exception:  # Arrow's errors, and whatever else comes of a value that no picture is
        rows = list(checked_records((f"row {number}", record) for number, record in enumerate(given)))
    names = dict.fromkeys(name for row in rows for name in row)
    return datasets.concatenate_datasets([_column(name, [row.get(name) for row in rows]) for name in names], axis=1)


def _column(name: str, values: list[Any]) -> datasets.Dataset:
    try:
        return datasets.Dataset.from_dict({name: values})
    except Exception:
        pass  # values of unlike types
    if any(_is_picture(item) for value in values for item in _listed(value)):
        pictures = [None if value is None else [_stored_picture(item) for item in _listed(value)] for value in values]
        features = datasets.Features({name: datasets.List(datasets.Image())})
        return datasets.Dataset.from_dict({name: pictures}, features=features)
    features = datasets.Features({name: datasets.Json()})
    return datasets.Dataset.from_dict({name: [_json_text(value) for value in values]}, features=features)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _is_picture(value: Any) -> bool:
    if isinstance(value, Mapping):
        return isinstance(value.get("bytes"), bytes)
    return isinstance(value, bytes) or hasattr(value, "tobytes")


def _stored_picture(value: Any) -> Any:
    """A picture as ``datasets`` stores it; what is none is named in place of a file, which nobody will find."""
    try:
        return None if value is None else datasets.Image().encode_example(value)
    except Exception:  # whatever the value is: its row becomes a bad image, which says the name below
        return {"bytes": None, "path": f"{type(value).__name__}, which is no picture"}
