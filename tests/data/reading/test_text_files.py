"""JSON and CSV files: one row that cannot be read is a status, and what stands in the others stays as it is written."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import datasets
import pytest

from ost_hf.data.config import DatasetConfig
from ost_hf.data.encoding import Encoder
from ost_hf.data.example import RowError
from ost_hf.data.rows import Rows
from ost_hf.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def load(path: Path, **config: Any) -> Rows:
    return Rows.load(DatasetConfig(path=str(path), **config))


def said(rows: Rows) -> list[str]:
    """Each row's answer, or what is wrong with the row."""
    found = []
    for row in range(len(rows)):
        try:
            found.append(rows[row].messages[-1]["content"][0]["text"])
        except RowError as error:
            found.append(f"{error.status}: {error.detail}")
    return found


def line(answer: Any) -> bytes:
    return json.dumps({"question": "q", "answer": answer}).encode()


DEEP = 2000
BROKEN_LINES: dict[str, tuple[bytes, str]] = {
    "latin-1": ('{"question": "q", "answer": "café"}'.encode("latin-1"), "line 3 is no UTF-8 text: byte 0xe9 at 33"),
    "cut off": (b'{"question": "q", "ans', "line 3 is no JSON: "),
    "null byte": (b'{"question": "q", "answer": "a\0b"}', "line 3 is no JSON: Invalid control character"),
    "null bytes": (b"\0" * 40, "line 3 is no JSON: Expecting value"),
    "lists in lists": (b'{"answer": ' + b"[" * DEEP + b"]" * DEEP + b"}", "line 3 is nested deeper than"),
    "objects in objects": (b'{"a":' * DEEP + b"1" + b"}" * DEEP, "line 3 is nested deeper than 64 lists and objects"),
    "some depth": (b'{"a":' * 200 + b"1" + b"}" * 200, "line 3: it is nested deeper than 64 lists and objects"),
    "brackets without end": (b"[" * 100_000, "line 3 is nested deeper than"),
    "a list": (b"[1, 2]", "line 3 holds a list, not an object"),
    "a text": (b'"x"', "line 3 holds a str, not an object"),
    "one key twice": (b'{"answer": "a", "answer": "b"}', "line 3 is no JSON: an object has one key twice"),
    "half a surrogate": (b'{"question": "q", "answer": "\\ud83d"}', "line 3: a text holds half of a surrogate pair"),
    "not JSON": (b"question: q", "line 3 is no JSON: Expecting value"),
    "an empty object": (b"{}", "expected text or a list of messages, got NoneType"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN_LINES)
def test_broken_line_is_a_status_and_the_others_are_rows(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    broken, detail = BROKEN_LINES[kind]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([line("a"), line("007"), broken, line("c"), broken, line(7)]))
    with caplog.at_level(logging.WARNING, "ost_hf"):
        rows = load(tmp_path / "rows.jsonl")
    answers = said(rows)
    assert [answers[row] for row in (0, 1, 3, 5)] == ["a", "007", "c", "7"]
    assert answers[2].startswith(f"bad_row: {detail}")
    assert len(set(rows.example_ids)) == 6
    # Many broken lines are told in one sentence.
    told = [record.getMessage() for record in caplog.records if record.name.startswith("ost_hf")]
    assert len(told) == (kind != "an empty object")
    assert all("2 of 6 rows of " in each and len(each) < 500 for each in told)


def test_broken_lines_become_statuses_of_encoding_and_leave_no_column_behind(tmp_path: Path, processor: Any) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([line("a"), b"{", line("b")]))
    rows = load(tmp_path / "rows.jsonl")
    assert [Encoder(processor).encode(rows, row).status for row in range(3)] == ["ok", "bad_row", "ok"]
    assert rows.dataset.column_names == ["question", "answer"]
    assert said(rows.select([1, 2]))[1] == "b"


def test_whole_lines_keep_their_hashes_beside_broken_ones(tmp_path: Path) -> None:
    (tmp_path / "whole.jsonl").write_bytes(line("a") + b"\n" + line("b"))
    (tmp_path / "broken.jsonl").write_bytes(line("a") + b"\n{\n" + line("b"))
    whole, broken = (load(tmp_path / name).content_hashes for name in ("whole.jsonl", "broken.jsonl"))
    assert [broken[0], broken[2]] == whole


JSON_VALUES = [
    ("2024-01-02", "2024-01-02"),
    ("2024-01-02 10:00:00", "2024-01-02 10:00:00"),
    ("1.50", "1.50"),
    ("true", "true"),
    ("null", "null"),
    ("007", "007"),
    (7, "7"),
    (1.5, "1.5"),
    (1 / 3, "0.3333333333333333"),
    (12345678901234567890, "12345678901234567890"),
    (0.1, "0.1"),
    (True, "True"),
]


@pytest.mark.parametrize("values", [JSON_VALUES[:2], JSON_VALUES[:6], JSON_VALUES[6:11], JSON_VALUES])
@pytest.mark.parametrize("as_list", [False, True])
def test_json_values_are_not_changed_on_the_way_in(tmp_path: Path, values: Any, as_list: bool) -> None:
    records = [{"question": "q", "answer": value} for value, _ in values]
    text = json.dumps(records) if as_list else "\n".join(map(json.dumps, records))
    (tmp_path / "rows.json").write_text(text)
    assert said(load(tmp_path / "rows.json")) == [written for _, written in values]


def test_number_of_more_digits_than_a_float_holds_is_kept(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": 0.12345678901234567890}\n' * 2)
    assert said(load(tmp_path / "rows.jsonl")) == ["0.12345678901234567890"] * 2


CELLS = [
    "NA",
    "None",
    "null",
    "nan",
    "007",
    "1.50",
    "1e3",
    "true",
    "2024-01-02",
    "1,000",
    " x ",
    'say ""a""',
    "a\nb",
    "-",
]


def test_cells_of_a_csv_are_not_changed_on_the_way_in(tmp_path: Path) -> None:
    table = "\n".join(f'{place:03},q,"{cell}",{place},2.5' for place, cell in enumerate(CELLS))
    (tmp_path / "rows.csv").write_text(f"id,question,answer,level,score\n{table}\n900,q,,NA,\n")
    rows = load(tmp_path / "rows.csv", id_column="id")
    assert said(rows)[:-1] == [cell.replace('""', '"') for cell in CELLS]
    # An empty cell is none.
    assert said(rows)[-1].startswith("bad_row: expected text")
    assert rows.example_ids[:2] == ["000", "001"]
    # Columns that say nothing of what a row says are numbers still.
    assert rows.dataset["level"][:] == [*range(len(CELLS)), None]
    assert rows.dataset["score"][-2:] == [2.5, None]


BROKEN_CSV: dict[str, tuple[bytes, list[str]]] = {
    "too many cells": (b"q,a\nq,b,c\nq,d", ["a", "bad_row: line 3: it has 3 cells, the header 2", "d"]),
    "first rows too long": (b"q,a,x\nq,b", ["bad_row: line 2: it has 3 cells, the header 2", "b"]),
    "too few cells": (b"q,a\nq\nq,d", ["a", "bad_row: expected text or a list of messages, got NoneType", "d"]),
    "latin-1": ("q,a\nq,é\nq,d".encode("latin-1"), ["a", "bad_row: line 3: it is no UTF-8 text", "d"]),
    "null byte": (b"q,a\nq,b\0c\nq,d", ["a", "b\0c", "d"]),
    "open quotation mark": (b'q,a\nq,"b\nq,d', ["a", "bad_row: line 3: a quotation mark in it is not closed", "d"]),
    "closed by another row": (b'q,a\nq,"b\nq,"d"', ["a", "bad_row: line 3: a quotation mark in it is not closed", "d"]),
    "quotation amid a cell": (b'q,a\nq,"b"c\nq,d"e', ["a", "bc", 'd"e']),
    "lines in a cell": (b'q,a\n\nq,"b\n\nc"\n\nq,\xff', ["a", "b\n\nc", "bad_row: line 8: it is no UTF-8 text"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN_CSV)
def test_broken_row_of_a_csv_is_a_status(tmp_path: Path, kind: str) -> None:
    text, answers = BROKEN_CSV[kind]
    (tmp_path / "rows.csv").write_bytes(b"question,answer\n" + text + b"\n")
    assert said(load(tmp_path / "rows.csv")) == answers


@pytest.mark.parametrize("folder", ["data", "runs [v2]", "a*b?"])
@pytest.mark.parametrize("name", ["pool.jsonl", "pool [1].jsonl", "pool [a-z].csv", "train-[0].parquet"])
def test_brackets_in_names_are_no_pattern(tmp_path: Path, folder: str, name: str) -> None:
    path = tmp_path / folder / name
    path.parent.mkdir()
    dataset = datasets.Dataset.from_list([{"question": "q", "answer": "a"}])
    getattr(dataset, {"l": "to_json", "v": "to_csv", "t": "to_parquet"}[name[-1]])(path)
    assert said(load(path)) == said(load(path.parent)) == ["a"]


def test_folder_of_files_with_a_broken_line(tmp_path: Path) -> None:
    (tmp_path / "train-1.jsonl").write_bytes(line("a") + b"\n{")
    (tmp_path / "train-2.jsonl").write_bytes(line("b"))
    (tmp_path / "test.jsonl").write_bytes(line("c"))
    assert [answer[:7] for answer in said(load(tmp_path))] == ["a", "bad_row", "b"]
    assert said(load(tmp_path, split="test")) == ["c"]


@pytest.mark.parametrize(
    ("config", "rows"), [({"split": "train[1:3]"}, 2), ({"split": "train[50%:]"}, 2), ({"limit": 3}, 3)]
)
def test_parts_of_a_file_with_a_broken_line(tmp_path: Path, config: Any, rows: int) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([line("a"), b"{", line("b"), line("c")]))
    assert len(load(tmp_path / "rows.jsonl", **config)) == rows


@pytest.mark.parametrize("split", ["test", "train[1"])
def test_split_that_is_not_there_is_named_for_such_files_too(tmp_path: Path, split: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([line("a"), b"\xff"]))
    with pytest.raises(DataError, match=r"rows\.jsonl"):
        load(tmp_path / "rows.jsonl", split=split)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.jsonl", '{"question": "é", "answer": "a"}'.encode("utf-16"), "no row can be read: line 1 is no UTF-8"),
        ("rows.json", b'[{"question": "q", "answer": "a"}, {"quest', r"cannot load .*rows\.json"),
        ("rows.csv", b"question,answer\nq,a,x\nq,b,x\n", "no row can be read: line 2: it has 3 cells, the header 2"),
        ("rows.csv", "fragé,answer\na,b\n".encode("latin-1"), "the header is no UTF-8 text"),
    ],
)
def test_file_of_which_nothing_can_be_read_is_refused(tmp_path: Path, name: str, text: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(DataError, match=message):
        load(tmp_path / name)


def test_changed_file_is_read_again(tmp_path: Path) -> None:
    for answer in ("a", "bb"):
        (tmp_path / "rows.jsonl").write_bytes(line(answer) + b"\n{")
        assert said(load(tmp_path / "rows.jsonl"))[0] == answer
