"""JSON and CSV files read row by row, where one row is no reason to refuse the others.

The readers of ``datasets`` refuse a file for one line, and take texts for dates. They are faster, and read the files
that have nothing of the kind (:mod:`ost_hf.data.reading.loading`).
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import datasets

from ost_hf.data.example import RowError
from ost_hf.data.reading.records import (
    MAX_DEPTH,
    UNREADABLE,
    Record,
    checked_records,
    exact_float,
    features_of,
    with_json,
)
from ost_hf.errors import DataError
from ost_hf.tables.statuses import BAD_ROW

# Whole numbers of 16 digits, others of 18: a float of 64 bits holds 15 of any number, and 17 of those it was made of.
_MANY_DIGITS = re.compile(rb"[\d.]{16}")
_LONG_NUMBER = re.compile(rb"[\s:,\[]-?(?:\d{16,}(?![\d.eE])|0?\.?0*[1-9][\d.]{18,})")
_CHUNK = 1 << 20
# Characters of a cell and lines of a row, at most.
_CELL_LIMIT = 1 << 30
_LINES_OF_ROW = 10_000
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
    return _is_sound_csv(path)


def _is_sound_csv(path: Path) -> bool:
    """Whether no row has more cells than the header, and every quotation mark is closed at a cell's end."""
    with _open_csv(path) as file, _long_cells():
        try:
            rows = (len(cells) for cells in csv.reader(file, strict=True) if cells)
            width = next(rows, 0)
            return all(cells <= width for cells in rows)
        except csv.Error:
            return False


@contextmanager
def _long_cells() -> Iterator[None]:
    """The module ``csv`` reads cells as long as texts are."""
    limit = csv.field_size_limit(_CELL_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


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
        return any(_MANY_DIGITS.search(line) and _LONG_NUMBER.search(line) for line in file)


def csv_options(paths: Sequence[Path], text: set[str]) -> dict[str, Any]:
    """Options with which pandas leaves the cells of text columns as they are written; empty ones are none."""
    names = dict.fromkeys(name for path in paths for name in _csv_header(path))
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
        DataError: If no row can be read.
        ValueError: If a file is one list that is no JSON.
    """
    names = [str(path) for path in paths]
    features = features_of(_rows(names, kind, sorted(text)))
    if not set(features) - {UNREADABLE}:
        first = next(_rows(names, kind, sorted(text)), None)
        why = "it has no rows" if first is None else f"no row can be read: {first[UNREADABLE]}"
        raise DataError(f"cannot load {', '.join(path.name for path in paths[:3])}: {why}")
    # Other contents, other rows in the cache of ``datasets``.
    versions = tuple((path.stat().st_mtime_ns, path.stat().st_size) for path in paths)
    arguments = {"names": tuple(names), "kind": kind, "text": tuple(sorted(text)), "versions": versions}
    return datasets.Dataset.from_generator(_stored, features=features, gen_kwargs={**arguments, "features": features})


def _stored(
    names: Sequence[str], kind: str, text: Sequence[str], versions: Any, features: datasets.Features
) -> Iterator[Record]:
    return (with_json(record, features) for record in _rows(names, kind, text))


def _rows(names: Sequence[str], kind: str, text: Sequence[str]) -> Iterator[Record]:
    for name in names:
        yield from checked_records(_json_rows(Path(name)) if kind == "json" else _csv_rows(Path(name), set(text)))


def _json_rows(path: Path) -> Iterator[tuple[str, Record]]:
    with path.open("rb") as file:
        start = file.read(_CHUNK).removeprefix(codecs.BOM_UTF8).lstrip()
        file.seek(0)
        if start.startswith(b"[") and not _is_json(start.splitlines()[0]):
            listed = _JSON.decode(file.read().removeprefix(codecs.BOM_UTF8).decode())
            for number, item in enumerate(listed, 1):
                yield f"item {number}", _of_json(item, f"item {number}")
            return
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if line.strip():
                yield f"line {number}", _of_line(line, f"line {number}")


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


_JSON = json.JSONDecoder(object_pairs_hook=_object, parse_float=exact_float)


def _csv_header(path: Path) -> list[str]:
    """The columns' names, told apart as pandas does it.

    Raises:
        ValueError: If they are no UTF-8.
    """
    with _open_csv(path) as file:
        names = next((cells for cells in csv.reader(file) if cells), [])
    seen: Counter[str] = Counter()
    header = []
    if not all(map(_is_text, names)):
        raise ValueError("the header is no UTF-8 text")
    for name in names:
        header.append(f"{name}.{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return header


def _open_csv(path: Path) -> TextIO:
    """A CSV as text; bytes that are no UTF-8 become lone surrogates."""
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _csv_records(path: Path) -> Iterator[tuple[int, list[str], str | None]]:
    """The rows below the header: number of the first line, cells, and what is wrong with them.

    Where a quotation mark is not closed, or closed amid a cell, only its own line is given up.
    """
    width = len(_csv_header(path))
    with _open_csv(path) as file, _long_cells():
        lines = _Lines(file)
        is_header = True
        while lines.more():
            start, cells, problem = lines.number, *_next_record(lines)
            if not cells:
                continue
            if not is_header:
                longer = f"it has {len(cells)} cells, the header {width}" if len(cells) > width else None
                yield start, cells, problem or longer
            is_header = False


class _Lines:
    """A file's lines, of which some can be given back."""

    def __init__(self, file: TextIO):
        self._file, self._back = file, deque[str]()
        self.number = 1

    def more(self) -> bool:
        if not self._back and (line := self._file.readline()):
            self._back.append(line)
        return bool(self._back)

    def take(self, taken: list[str]) -> Iterator[str]:
        """Lines from here on, noted in ``taken``; behind an unclosed quotation mark no more than a row may have."""
        while len(taken) < _LINES_OF_ROW and self.more():
            taken.append(self._back.popleft())
            self.number += 1
            yield taken[-1]

    def give_back(self, taken: list[str]) -> None:
        self._back.extendleft(reversed(taken))
        self.number -= len(taken)


def _next_record(lines: _Lines) -> tuple[list[str], str | None]:
    taken: list[str] = []
    try:
        cells = next(csv.reader(lines.take(taken), strict=True), [])
    except csv.Error as error:
        lines.give_back(taken[1:])
        alone = next(csv.reader(taken[:1]), [])
        # A cell such as "a"b: all readers take it for ab.
        is_closed = len(taken) == 1 and "unexpected end" not in str(error)
        return (alone, None) if is_closed else (alone, "a quotation mark in it is not closed")
    return cells, None if all(map(_is_text, cells)) else "it is no UTF-8 text"


def _is_text(cell: str) -> bool:
    try:
        return cell.isascii() or bool(cell.encode())
    except UnicodeEncodeError:
        return False


def _csv_rows(path: Path, text: set[str]) -> Iterator[tuple[str, Record]]:
    header = _csv_header(path)
    for number, cells, problem in _csv_records(path):
        place = f"line {number}"
        if problem is not None:
            yield place, {UNREADABLE: f"{place}: {problem}"}
            continue
        row = dict(zip(header, cells + [""] * (len(header) - len(cells)), strict=True))
        yield place, {name: _cell(cell) if name in text else _guessed(cell) for name, cell in row.items()}


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
