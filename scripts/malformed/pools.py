"""Pools of malformed rows: cells in every layout and every file format, and files that are broken themselves."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from malformed.cells import Cell, messages, numbers, pictures, texts, tokens

# What can hold cells that are no text.
TYPED = ("memory", "parquet", "arrow")
GOOD = Cell("it is 7", "ok", "good", "it is 7")


@dataclass(frozen=True)
class Pool:
    """Rows to score: ``source`` is a dataset or a file, ``cells`` says what each row holds.

    A file that is broken has no cells: how many rows it holds is for its reader to say. ``fields`` go into the pool's
    section. ``may_be_refused`` says that the whole pool may be refused, in a sentence.
    """

    name: str
    source: Any
    cells: list[Cell]
    fields: dict[str, Any]
    may_be_refused: bool = False


def pools(seed: int, rows: int, folder: Path, tokenizer: str) -> Iterator[Pool]:
    """Pools with together at least so many malformed rows.

    Args:
        seed: The same seed gives the same pools.
        rows: How many malformed rows at least.
        folder: Where files go: ``folder/pool`` is the pools' folder, ``folder/outside`` none of theirs.
        tokenizer: What rows of tokens are said to be made with.
    """
    generator = random.Random(seed)
    inside, outside = folder / "pool", folder / "outside"
    for each in (inside, outside):
        each.mkdir(parents=True, exist_ok=True)
    made = 0
    for number in range(10**6):
        for pool in _round(generator, inside, outside, tokenizer, number):
            yield pool
            made += sum(cell.kind != "good" for cell in pool.cells) or 1
            if made >= rows:
                return


def _round(generator: random.Random, inside: Path, outside: Path, tokenizer: str, number: int) -> Iterator[Pool]:
    name = f"{number}"
    for layout, form in (
        ("question_answer", "csv"),
        ("messages", "jsonl"),
        ("prompt_completion", "json"),
        ("question_answer", "parquet"),
    ):
        some = generator.sample(texts(generator), 12)
        yield _pool(f"{name} texts {layout}", [GOOD, *some, GOOD], layout, form, inside)
    for kind, cells in numbers(generator):
        yield _typed(f"{name} {cells[0].kind}", cells, kind, generator.choice(TYPED), inside)
    for cell in messages(generator):
        yield _conversation(f"{name} {cell.kind}", cell, generator.choice(("memory", "jsonl", "parquet")), inside)
    for cell in tokens(generator):
        record = cell.value if isinstance(cell.value, dict) else {}
        data = datasets.Dataset.from_list([record])
        yield Pool(f"{name} tokens: {cell.kind}", data, [cell], {"tokenizer": tokenizer})
    found: dict[str, list[Cell]] = {}
    for cell in pictures(generator, inside, outside):
        found.setdefault(_arrow_kind(cell.value), []).append(cell)
    for kind, cells in found.items():
        for layout in ("question_answer", "messages"):
            yield _with_pictures(f"{name} pictures {kind} {layout}", cells, layout, generator.choice(TYPED), inside)
    yield from _broken_files(generator, inside, name)


def _record(layout: str, answer: Any) -> dict[str, Any]:
    if layout == "messages":
        return {"messages": [{"role": "user", "content": "what is 3 + 4?"}, {"role": "assistant", "content": answer}]}
    first, second = ("prompt", "completion") if layout == "prompt_completion" else ("question", "answer")
    return {first: "what is 3 + 4?", second: answer}


def _pool(name: str, cells: list[Cell], layout: str, form: str, folder: Path) -> Pool:
    records = [_record(layout, cell.value) for cell in cells]
    if form == "csv":  # has no null: an empty cell is what is written for one
        cells = [cell if cell.value is not None else GOOD for cell in cells]
        records = [_record(layout, cell.value) for cell in cells]
    return Pool(name, stored(records, form, folder, name), cells, {})


def _typed(name: str, cells: list[Cell], kind: Any, form: str, folder: Path) -> Pool:
    table = pa.table({"question": ["q"] * len(cells), "answer": pa.array([cell.value for cell in cells], kind)})
    return Pool(name, stored(datasets.Dataset(table), form, folder, name), cells, {}, may_be_refused=True)


def _conversation(name: str, cell: Cell, form: str, folder: Path) -> Pool:
    good, cells = _record("messages", GOOD.value), [GOOD, cell]
    records = [good, {"messages": cell.value}]
    if not _fits_arrow(records):  # other types than a conversation's: alone
        records, cells = records[1:], cells[1:]
    if not _fits_arrow(records):
        form = "jsonl"
    elif cell.value is None or cell.value == []:
        form = "memory"
    return Pool(name, stored(records, form, folder, name), cells, {}, may_be_refused=len(cells) == 1)


def _fits_arrow(records: list[dict[str, Any]]) -> bool:
    try:
        datasets.Dataset.from_list(records)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError):
        return False
    return True


def _with_pictures(name: str, cells: list[Cell], layout: str, form: str, folder: Path) -> Pool:
    key = "images" if layout == "messages" else "image"
    records = [{**_record(layout, GOOD.value), key: [cell.value] if key == "images" else cell.value} for cell in cells]
    # The folder that relative paths start from is the file's own: pools in memory have none.
    return Pool(name, stored(records, "parquet" if form == "memory" else form, folder, name), cells, {})


def _arrow_kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"struct of {type(value['bytes']).__name__}"
    return type(value).__name__


def stored(rows: Any, form: str, folder: Path, name: str) -> Any:
    """Rows as a dataset in memory, or as the path of a file.

    Args:
        rows: Records, or a dataset.
        form: ``memory``, ``parquet``, ``jsonl``, ``json``, ``csv`` or ``arrow``.
        folder: Where the file goes.
        name: Of the file.
    """
    path = folder / f"{name.replace('/', ' ')}.{form}"
    if form == "jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in rows))
        return str(path)
    if form == "json":
        path.write_text(json.dumps(rows))
        return str(path)
    data = rows if isinstance(rows, datasets.Dataset) else datasets.Dataset.from_list(rows)
    if form == "memory":
        return data
    if form == "parquet":
        data.to_parquet(str(path))
    elif form == "csv":
        data.to_csv(str(path), index=False)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, data.data.schema) as writer:
            writer.write_table(data.data.table)
    return str(path)


def _broken_files(generator: random.Random, folder: Path, name: str) -> Iterator[Pool]:
    """Files of which a part, or all, cannot be read."""
    line = json.dumps(_record("question_answer", GOOD.value)).encode()
    deep = b'{"question": "q", "answer": ' + b"[" * 2000 + b"]" * 2000 + b"}"
    bad_lines = {
        "Latin-1": '{"question": "q", "answer": "caf\xe9"}'.encode("latin-1"),
        "cut": line[:20],
        "not JSON": b"hello",
        "deep": deep,
        "NUL": b'{"question": "q\x00", "answer": "7"}',
        "a list": b"[1, 2]",
        "a number": b"7",
        "other keys": b'{"a": 1}',
        "other types": b'{"question": {"a": 1}, "answer": [1]}',
        "twice": line + line,
        "blank": b"   ",
        "NaN": b'{"question": "q", "answer": NaN}',
    }
    for kind, bad in bad_lines.items():
        path = folder / f"{name} line {kind}.jsonl"
        before = generator.randint(1, 4)
        path.write_bytes(b"\n".join([line] * before + [bad] + [line] * 2) + b"\n")
        yield Pool(f"{name} JSONL line: {kind}", str(path), [], {})
    whole = {
        "empty.jsonl": b"",
        "binary.jsonl": bytes(generator.randrange(256) for _ in range(300)),
        "top.json": b'{"question": "q"}',
        "ragged.csv": b"question,answer\na,b\nc\nd,e,f\n",
        "no header.csv": b"1,2\n3,4\n",
        "binary.parquet": b"PAR1" + b"x" * 50,
        "quotes.csv": b'question,answer\n"a,b\nc,d\n',
        "utf16.csv": "question,answer\na,7\n".encode("utf-16"),
        "binary.arrow": b"ARROW1",
        "pool [1] 50% {x}.jsonl": line + b"\n",
        "tab.csv": b"question\tanswer\na\t7\n",
    }
    for file, data in whole.items():
        path = folder / f"{name} {file}"
        path.write_bytes(data)
        yield Pool(f"{name} file: {file}", str(path), [], {}, may_be_refused=True)
