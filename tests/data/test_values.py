"""What stands in a cell reaches the model as it was written, whatever type its column has, in every layout."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ost_hf.data.config import DatasetConfig
from ost_hf.data.encoding import Encoder
from ost_hf.data.example import RowError
from ost_hf.data.rows import Rows
from ost_hf.data.sources import rows_from
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.duplicates.near import NearFinder

Turns = list[tuple[str, str]]


def turns_of(rows: Rows, row: int = 0) -> Turns:
    return [(m["role"], "".join(part["text"] for part in m["content"])) for m in rows[row].messages]


def answers_of(rows: Rows) -> list[str]:
    """The last text of each row, or the status that it has."""
    found = []
    for row in range(len(rows)):
        try:
            found.append(turns_of(rows, row)[-1][1])
        except RowError as error:
            found.append(error.status)
    return found


def in_column(array: pa.Array) -> Rows:
    return Rows(datasets.Dataset(pa.table({"question": ["q"] * len(array), "answer": array})))


NOON = dt.datetime(2024, 1, 2, 12)
COLUMNS: list[tuple[pa.Array, list[str]]] = [
    (
        pa.array([0.1, 2.0, 1e-7, 1e22, 3.14159], pa.float32()),
        ["0.1", "2", "1e-07", str(int(np.float32(1e22))), "3.14159"],
    ),
    (pa.array(np.array([0.1, 65504, 0.333], np.float16)), ["0.1", "65504", "0.333"]),
    (pa.array([0.1, 1 / 3, 7.0, float("nan"), None]), ["0.1", "0.3333333333333333", "7", "bad_row", "bad_row"]),
    (pa.array([Decimal("1.50"), Decimal("700.00"), Decimal("-0.07")]), ["1.50", "700.00", "-0.07"]),
    (pa.array([Decimal("1000")], pa.decimal128(6, -2)), ["1000"]),
    (pa.array([2**62, -3], pa.int64()), [str(2**62), "-3"]),
    (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
    (pa.array([True, False, None]), ["True", "False", "bad_row"]),
    (pa.array([dt.date(2024, 1, 2)]), ["2024-01-02"]),
    (pa.array([NOON]), ["2024-01-02 12:00:00"]),
    (pa.array([NOON], pa.timestamp("s", "UTC")), ["2024-01-02 12:00:00+00:00"]),
    (pa.array([dt.time(12, 30)]), ["12:30:00"]),
    (pa.array([b"caf\xc3\xa9", b"caf\xe9"]), ["café", "bad_row"]),
    (pa.array(["007", "NA", "None", "", " x "], pa.large_string()), ["007", "NA", "None", "", " x "]),
]


@pytest.mark.parametrize(("array", "written"), COLUMNS, ids=[str(array.type) for array, _ in COLUMNS])
def test_values_are_read_as_they_are_written(array: pa.Array, written: list[str]) -> None:
    assert answers_of(in_column(array)) == written


def test_classes_are_read_by_their_names() -> None:
    features = datasets.Features(
        {"question": datasets.Value("string"), "answer": datasets.ClassLabel(names=["cat", "dog"])}
    )
    rows = Rows(datasets.Dataset.from_dict({"question": ["q"] * 3, "answer": [1, 0, -1]}, features=features))
    assert answers_of(rows) == ["dog", "cat", "bad_row"]


def test_values_of_unlike_types_in_one_list_stay_what_they_are() -> None:
    values = ["x", 1, True, 1.5, 1 / 3, "007", "true", "1.50", "null", 10**30, np.float32(0.1), [1], None]
    rows = rows_from([{"question": "q", "answer": value} for value in values])
    written = ["x", "1", "True", "1.5", repr(1 / 3), "007", "true", "1.50", "null", str(10**30), "0.1"]
    assert answers_of(rows) == [*written, "bad_row", "bad_row"]


def test_text_that_datasets_stores_as_json_stays_a_text() -> None:
    records = [{"question": "q", "answer": value} for value in ("x", "007", [1])]
    assert answers_of(Rows(datasets.Dataset.from_list(records, on_mixed_types="use_json")))[:2] == ["x", "007"]


def test_rows_in_memory_that_no_column_holds_are_statuses_of_their_own() -> None:
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"a": deep}
    rows = rows_from([{"question": "q", "answer": value} for value in ("x", deep, deep, "\ud83d")])
    assert answers_of(rows) == ["x", *["bad_row"] * 3]
    assert len(set(rows.content_hashes)) == 4
    assert rows.dataset.column_names == ["question", "answer"]
    assert answers_of(rows.select([3, 0])) == ["bad_row", "x"]


TALK = [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]
CHAT: Turns = [("user", "1 + 1?"), ("assistant", "2")]
LAYOUTS: dict[str, tuple[dict[str, Any], Turns]] = {
    "sharegpt": ({"conversations": TALK}, CHAT),
    "sharegpt in messages": ({"messages": TALK}, CHAT),
    "sharegpt as JSON": ({"conversations": json.dumps(TALK)}, CHAT),
    "sharegpt with system": ({"conversations": TALK, "system": "Add."}, [("system", "Add."), *CHAT]),
    "sharegpt, all roles": (
        {"conversations": [{"from": "system", "value": "Add."}, *TALK, {"from": "tool", "value": "3"}]},
        [("system", "Add."), *CHAT, ("tool", "3")],
    ),
    "conversations with roles": ({"conversations": [{"role": "user", "content": "1 + 1?"}]}, CHAT[:1]),
    "messages as JSON": ({"messages": '[{"role": "user", "content": "007"}]'}, [("user", "007")]),
    "messages of plain text": ({"messages": "[a] b"}, [("user", "[a] b")]),
    "alpaca": ({"instruction": "Add", "input": "1 + 1", "output": "2"}, [("user", "Add\n\n1 + 1"), ("assistant", "2")]),
    "alpaca, blank input": ({"instruction": "Add", "input": " ", "output": "2"}, [("user", "Add"), ("assistant", "2")]),
    "alpaca without input": ({"instruction": "Add", "output": 2}, [("user", "Add"), ("assistant", "2")]),
    "alpaca with history": (
        {"instruction": "More", "output": "4", "system": "Add.", "history": [["1 + 1?", "2"]]},
        [("system", "Add."), *CHAT, ("user", "More"), ("assistant", "4")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_found_by_their_columns(name: str) -> None:
    record, turns = LAYOUTS[name]
    assert turns_of(rows_from([record])) == turns


@pytest.mark.parametrize(
    ("cell", "files"),
    [
        ('["a.png", "b [1].png"]', ["a.png", "b [1].png"]),
        ("[1].png", ["[1].png"]),
        ('["x.png', ['["x.png']),
        (None, []),
    ],
)
def test_pictures_of_a_text_column(cell: str | None, files: list[str]) -> None:
    features = datasets.Features({name: datasets.Value("string") for name in ("question", "answer", "images")})
    rows = Rows(datasets.Dataset.from_list([{"question": "q", "answer": "a", "images": cell}], features=features))
    assert rows[0].images == files


@pytest.mark.parametrize(
    ("record", "detail"),
    [
        (
            {"conversations": [{"from": "narrator", "value": "x"}]},
            "a message is from 'narrator'; known are human",
        ),
        ({"conversations": [{"from": 3, "value": "x"}]}, "a message is from 3; known are"),
        ({"messages": '[{"role": "user", '}, "begins like a list of messages, but is no JSON"),
        ({"messages": "[" + '{"a":[' * 2000}, "the row cannot be read (RecursionError"),
        ({"conversations": '[{"a":' * 2000 + "1" + "}]" * 2000}, "the row cannot be read (RecursionError"),
        ({"instruction": "i", "input": ["x"], "output": "o"}, "instruction and input must be text, input is list"),
        ({"instruction": "i", "output": "o", "history": "x"}, "history must be a list of pairs"),
        ({"conversations": TALK, "system": 3}, "system must be text, got int"),
        ({"conversations": None}, "expected text or a list of messages"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(record: dict[str, Any], detail: str) -> None:
    with pytest.raises(RowError, match=detail.replace("(", r"\(")) as caught:
        rows_from([record])[0]
    assert caught.value.status == "bad_row"


@pytest.fixture
def unreadable(tmp_path: Path) -> Rows:
    """Five rows of a Parquet file, of which the second and the third hold texts that are no UTF-8."""
    texts = [b"fine", b"caf\xe9", b"\xff\xfe", b"well", b"caf\xc3\xa9"]
    answers = pa.Array.from_buffers(pa.string(), 5, pa.array(texts).buffers())
    pq.write_table(pa.table({"question": ["q"] * 5, "answer": answers, "id": answers}), tmp_path / "rows.parquet")
    return Rows.load(DatasetConfig(path=str(tmp_path / "rows.parquet")))


def test_cells_that_cannot_be_read_are_a_status(unreadable: Rows, processor: Any) -> None:
    encoded = [Encoder(processor).encode(unreadable, row) for row in range(5)]
    assert [each.status for each in encoded] == ["ok", "bad_row", "bad_row", "ok", "ok"]
    assert encoded[1].detail.startswith("the row cannot be read (UnicodeDecodeError: 'utf-8' codec can't decode")
    assert len(set(unreadable.content_hashes)) == len(set(unreadable.example_ids)) == 5
    finder = NearFinder([unreadable], [list(range(5))], DuplicatesConfig(near=True))
    assert list(finder.candidates(0, 0)) == []


def test_row_without_a_name_is_named_by_its_content(unreadable: Rows) -> None:
    named = Rows(unreadable.dataset, DatasetConfig("x", id_column="id"))
    assert named.example_ids == ["fine", *unreadable.example_ids[1:3], "well", "café"]
    nulls = rows_from([{"question": "q", "answer": "a", "example_id": None}] * 2)
    with_names = Rows(nulls.dataset, DatasetConfig("x", id_column="example_id"))
    assert with_names.example_ids == nulls.example_ids
