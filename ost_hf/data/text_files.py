"""JSON and CSV files read row by row, where one row is no reason to refuse the others.

The readers of ``datasets`` refuse a file for one line, and take texts for dates. They are faster, and read the files
that have nothing of the kind (:mod:`ost_hf.data.loading`).
"""

from __future__ import annotations

import codecs
import csv
import json
import re
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import datasets

from ost_hf.data.example import RowError
from ost_hf.data.records import MAX_DEPTH, UNREADABLE, Record, checked_records, features_of
from ost_hf.tables.statuses import BAD_ROW

# More digits than a float of 64 bits holds.
_LONG_NUMBER = re.compile(rb"[\s:,\[]-?\d*\.?\d{16,}")
_CHUNK = 1 << 20
# What pandas takes for an empty cell.
EMPTY_CELLS = [
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
    *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
]


def is_sound(path: Path, kind: str) -> bool:
    """Whether a file is UTF-8 without null bytes, and nothing in it is so deep, or shifted, that readers break."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError:
                return False
            if b"\0" in chunk:
                return False
        file.seek(0)
        if kind == "json":
            return all(line.count(b"{") + line.count(b"[") <= MAX_DEPTH or _is_shallow(line) for line in file)
    header, first = ([*islice(_csv_lines(path), 2), [], []])[:2]
    # pandas takes the first cell of longer rows for the row's name, and shifts the others.
    return len(first) <= len(header)


def _is_shallow(line: bytes) -> bool:
    """Whether a line of JSON is nested no deeper than is read; brackets in texts count too, to be sure."""
    depth = deepest = 0
    for mark in re.findall(rb"[][{}]", line):
        depth += 1 if mark in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest <= MAX_DEPTH or line.lstrip().startswith(b"[")


def has_long_numbers(path: Path) -> bool:
    """Whether a JSON file has numbers of more digits than a float holds."""
    with path.open("rb") as file:
        return any(_LONG_NUMBER.search(line) for line in file)


def csv_options(paths: Sequence[Path], text: set[str]) -> dict[str, Any]:
    """Options with which pandas leaves the cells of text columns as they are written; empty ones are none."""
    names = dict.fromkeys(name for path in paths for name in next(_csv_lines(path), []))
    return {
        "converters": {name: _cell for name in names if name in text},
        "keep_default_na": False,
        "na_values": {name: EMPTY_CELLS for name in names if name not in text},
    }


def _cell(text: str) -> str | None:
    return text or None


def read_rows(paths: Sequence[Path], kind: str, text: set[str]) -> datasets.Dataset:
    """All rows of some files; one that cannot be read has the reason in the column ``ost_unreadable``.

    Args:
        paths: The files.
        kind: ``json`` (lines, or one list) or ``csv``.
        text: The columns of a CSV whose cells are texts, whatever they look like.

    Raises:
        ValueError: If a file is one list that is no JSON, or no row can be read.
    """
    names = [str(path) for path in paths]
    features = features_of(_rows(names, kind, sorted(text)))
    if not set(features) - {UNREADABLE}:
        first = next(_rows(names, kind, sorted(text)), None)
        raise ValueError("it has no rows" if first is None else f"no row can be read: {first[UNREADABLE]}")
    # Other contents, other rows in the cache of ``datasets``.
    versions = [(path.stat().st_mtime_ns, path.stat().st_size) for path in paths]
    arguments = {"names": tuple(names), "kind": kind, "text": tuple(sorted(text)), "versions": tuple(versions)}
    return datasets.Dataset.from_generator(_rows, features=features, gen_kwargs=arguments)


def _rows(names: Sequence[str], kind: str, text: Sequence[str], versions: Any = None) -> Iterator[Record]:
    for name in names:
        yield from checked_records(_json_rows(Path(name)) if kind == "json" else _csv_rows(Path(name), set(text)))


def _json_rows(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        start = file.read(_CHUNK).removeprefix(codecs.BOM_UTF8).lstrip()
        file.seek(0)
        if start.startswith(b"[") and not _is_json(start.splitlines()[0]):
            listed = _JSON.decode(file.read().removeprefix(codecs.BOM_UTF8).decode())
            yield from (_of_json(item, f"item {number}") for number, item in enumerate(listed, 1))
            return
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                yield _of_line(line, f"line {number}")


def _is_json(line: bytes) -> bool:
    """Whether a line is whole; else it opens a list that goes on below it."""
    try:
        return not all(isinstance(item, dict) for item in _JSON.decode(line.decode()))
    except (ValueError, RecursionError):
        return False


def _of_line(line: bytes, place: str) -> Record:
    try:
        return _of_json(_JSON.decode(line.decode()), place)
    except UnicodeDecodeError as error:
        return {UNREADABLE: f"{place} is no UTF-8 text: byte {line[error.start]:#04x} at {error.start + 1}"}
    except json.JSONDecodeError as error:
        return {UNREADABLE: f"{place} is no JSON: {error.msg}, at {error.pos + 1}"}
    except RecursionError:
        return {UNREADABLE: f"{place} is nested deeper than {MAX_DEPTH} lists and objects"}
    except (ValueError, RowError) as error:
        return {UNREADABLE: f"{place} is no JSON: {error}"}


def _of_json(item: Any, place: str) -> Record:
    if isinstance(item, dict):
        return item
    return {UNREADABLE: f"{place} holds a {type(item).__name__}, not an object with the row's columns"}


def _object(pairs: list[tuple[str, Any]]) -> Record:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RowError(BAD_ROW, "an object has one key twice")
    return found


def _exact(digits: str) -> float | str:
    """A number as a float, if that is the same; else as it is written."""
    number = float(digits)
    return number if Decimal(digits) == Decimal(repr(number)) else digits


_JSON = json.JSONDecoder(object_pairs_hook=_object, parse_float=_exact)


def _csv_lines(path: Path) -> Iterator[list[str]]:
    """The cells of each row of a CSV; bytes that are no UTF-8 become lone surrogates."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        limit = csv.field_size_limit(sys.maxsize)
        try:
            yield from (cells for cells in csv.reader(file) if cells)
        finally:
            csv.field_size_limit(limit)


def _csv_rows(path: Path, text: set[str]) -> Iterator[Record]:
    lines = _csv_lines(path)
    header = next(lines, [])
    for number, cells in enumerate(lines, 1):
        if len(cells) > len(header):
            yield {UNREADABLE: f"row {number} has {len(cells)} cells, the header {len(header)}"}
        elif any("\udc80" <= sign <= "\udcff" for cell in cells for sign in cell):
            yield {UNREADABLE: f"row {number} is no UTF-8 text"}
        else:
            row = dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True))
            yield {name: _cell(cell) if name in text else _guessed(cell) for name, cell in row.items()}


def _guessed(cell: str) -> Any:
    """A cell of a column that holds no text of a row: a number if it is one."""
    if cell in EMPTY_CELLS:
        return None
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell
