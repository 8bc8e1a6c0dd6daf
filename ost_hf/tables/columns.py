"""Columns that were computed for a batch of rows, and rows of a table that are filled with them.

A column is an array with one entry for each row: numbers ``[B]``, vectors ``[B, k]`` (a sketch, a utility for each
anchor), or texts. NaN stands for "no number", and becomes an empty cell. Vectors may be of unlike lengths (a number of
each turn): then NaN fills up the shorter ones, and a table does not keep it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ost_hf.tables.statuses import NON_FINITE, OK

Columns = Mapping[str, np.ndarray]

# Every row of a score table has these; what else a scorer gives stands behind them, sorted by name.
SCHEMA = pa.schema(
    [
        ("example_id", pa.string()),
        ("row", pa.int64()),
        ("utility", pa.float64()),
        ("utility_se", pa.float64()),
        ("loss", pa.float64()),
        ("tokens", pa.int32()),
        ("status", pa.string()),
        ("detail", pa.string()),
    ]
)
# A row's gradient and hidden state in a few numbers, where they were asked for.
VECTORS = ("sketch", "embedding")
# What is known of a row before it is scored, and what a scorer may say of it too.
OF_THE_ROW = ("example_id", "row", "tokens")
_SAID = ("status", "detail")


def checked(columns: Columns) -> Columns:
    """The same with a ``status`` and a ``detail`` for every row; a row that is not ``ok`` loses its numbers.

    Args:
        columns: ``utility`` and others. Where ``loss`` is among them it must be finite, as the utility must. With a
            ``status`` among them, a row whose status is another needs no utility, and one without a loss has NaN there.
    """
    utility = np.asarray(columns["utility"], dtype=np.float64)
    loss = columns.get("loss")
    status = np.array(columns.get("status", [OK] * len(utility)), dtype=object)
    detail = np.array(columns.get("detail", [""] * len(utility)), dtype=object)
    finite = np.isfinite(utility)
    if loss is not None:
        finite &= ~np.isinf(loss) if "status" in columns else np.isfinite(loss)
    for place in np.flatnonzero((status == OK) & ~finite):
        status[place] = NON_FINITE
        detail[place] = f"utility {utility[place]}, loss {None if loss is None else float(loss[place])}"
    is_ok = status == OK
    kept: dict[str, np.ndarray] = {"status": status, "detail": detail}
    for name, values in columns.items():
        if name in ("status", "detail"):
            continue
        numbers = np.array(values, dtype=_type_of_vectors(values) if np.ndim(values) == 2 else np.float64)
        # A finite loss is worth knowing even where there is no utility.
        numbers[~np.isfinite(numbers) if name == "loss" else ~is_ok] = np.nan
        kept[name] = numbers
    return kept


def _type_of_vectors(values: np.ndarray) -> type[np.floating[Any]]:
    """Half precision where a scorer gives that, to store much; else single."""
    return np.float16 if values.dtype == np.float16 else np.float32


def take(columns: Columns, places: Sequence[int]) -> Columns:
    """Some rows of a batch's columns."""
    return {name: values[list(places)] for name, values in columns.items()}


def put(columns: Columns, place: int, one: Columns) -> Columns:
    """The columns of a batch with those of a batch of one in place of a row's."""
    count = len(columns["utility"])
    before, after = take(columns, range(place)), take(columns, range(place + 1, count))
    return joined([before, one, after])


def joined(parts: Sequence[Columns]) -> Columns:
    """The columns of several batches, one after the other; where a batch lacks one, its rows have no number."""
    names = sorted({name for part in parts for name in part})
    return {name: np.concatenate(_of_one_width([_or_empty(part, name, parts) for part in parts])) for name in names}


def _or_empty(part: Columns, name: str, parts: Sequence[Columns]) -> np.ndarray:
    if name in part:
        return part[name]
    like = next(other[name] for other in parts if name in other)
    return np.full((len(part["utility"]), *like.shape[1:]), np.nan, dtype=like.dtype)


def _of_one_width(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Vectors of several batches, the shorter ones filled up with NaN."""
    width = max((each.shape[1] for each in arrays if each.ndim == 2), default=0)
    return [
        np.pad(each, ((0, 0), (0, width - each.shape[1])), constant_values=np.nan) if each.ndim == 2 else each
        for each in arrays
    ]


def _without_fill(vector: np.ndarray) -> np.ndarray | None:
    """A vector up to its last number; ``None`` if it has none."""
    numbers = np.flatnonzero(~np.isnan(vector))
    return vector[: numbers[-1] + 1] if len(numbers) else None


class TableRows:
    """Rows of a score table, begun with what is known of each and filled with columns, in any order."""

    def __init__(self) -> None:
        self._facts: dict[str, list[Any]] = {name: [] for name in (*OF_THE_ROW, *_SAID)}
        self._chunks: list[tuple[Sequence[int], Columns]] = []

    def __len__(self) -> int:
        return len(self._facts["row"])

    def begin(self, example_id: str, row: int, tokens: int, status: str, detail: str) -> int:
        """Adds a row without numbers, and gives its place here."""
        facts = {"example_id": example_id, "row": row, "tokens": tokens, "status": status, "detail": detail}
        for name, value in facts.items():
            self._facts[name].append(value)
        return len(self) - 1

    def fill(self, places: Sequence[int], columns: Columns) -> None:
        """Sets the columns of some rows; ``status`` and ``detail`` among them replace what the rows began with."""
        columns = dict(columns)
        for name in _SAID:
            values = columns.pop(name, None)
            for place, value in zip(places, [] if values is None else values, strict=values is not None):
                # A row that was cut to the limit stays so named, though its scorer was content with it.
                if value not in (OK, ""):
                    self._facts[name][place] = value
        self._chunks.append((places, columns))

    def table(self) -> pa.Table:
        """The rows in the order of ``row``."""
        count = len(self)
        names = {name for _, columns in self._chunks for name in columns} - set(SCHEMA.names)
        order = np.argsort(np.asarray(self._facts["row"]), kind="stable")
        made = {}
        for name in [*SCHEMA.names, *sorted(names)]:
            if name in self._facts:
                made[name] = pa.array([self._facts[name][place] for place in order], SCHEMA.field(name).type)
            else:
                made[name] = self._numbers(name, count, order)
        return pa.table(made)

    def _numbers(self, name: str, count: int, order: np.ndarray) -> pa.Array:
        chunks = [(places, columns[name]) for places, columns in self._chunks if name in columns]
        if any(values.ndim == 2 for _, values in chunks):
            vectors: list[Any] = [None] * count
            for places, values in chunks:
                for place, vector in zip(places, values, strict=True):
                    vectors[place] = _without_fill(vector)
            is_half = all(values.dtype == np.float16 for _, values in chunks)
            return pa.array([vectors[place] for place in order], pa.list_(pa.float16() if is_half else pa.float32()))
        numbers = np.full(count, np.nan)
        for places, values in chunks:
            numbers[list(places)] = values
        numbers = numbers[order]
        return pa.array(numbers, pa.float64(), mask=np.isnan(numbers))
