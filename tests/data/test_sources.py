"""Rows from whatever people have; the same rows from each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import transformers

from ost_hf.data.config import AnchorConfig, DatasetConfig
from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.data.sources import rows_from
from ost_hf.errors import ConfigError, DataError

RECORDS = [{"question": f"{n} + {n}?", "answer": str(2 * n), "topic": "ab"[n % 2]} for n in range(6)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return path


FORMS: dict[str, Any] = {
    "a name": lambda file: str(file),
    "a path": lambda file: file,
    "fields": lambda file: {"path": str(file)},
    "fields as JSON": lambda file: f' {{"path": {json.dumps(str(file))}}}',
    "a configuration": lambda file: DatasetConfig(path=str(file)),
    "an anchors' configuration": lambda file: AnchorConfig(path=str(file)),
    "a dataset": lambda file: datasets.Dataset.from_list(RECORDS),
    "a list": lambda file: RECORDS,
    "a tuple": lambda file: tuple(RECORDS),
    "rows": lambda file: Rows(datasets.Dataset.from_list(RECORDS)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", ["pool", "anchors", "evaluation"])
def test_every_form_gives_the_same_rows(file: Path, form: str, what: str) -> None:
    rows = rows_from(FORMS[form](file), what)
    expected = Rows(datasets.Dataset.from_list(RECORDS))
    assert rows.dataset.to_list() == RECORDS
    assert rows.content_hashes == expected.content_hashes
    assert rows.example_ids == expected.example_ids


def test_rows_that_are_rows_already_are_themselves(text_path: str) -> None:
    rows = Rows(datasets.Dataset.from_list(RECORDS))
    assert rows_from(rows) is rows
    encoder = Encoder(transformers.AutoTokenizer.from_pretrained(text_path))
    assert rows_from(EncodedDataset(rows, encoder)) is rows


def test_anchors_have_fields_of_their_own(file: Path) -> None:
    fields = {"path": str(file), "size": 2, "stratify_by": "topic", "overlap": "drop"}
    for source in (fields, json.dumps(fields), AnchorConfig(**fields)):
        anchors = rows_from(source, "anchors")
        assert sorted(anchors.dataset["topic"]) == ["a", "b"]
        assert getattr(anchors.config, "overlap", None) == "drop"
    with pytest.raises(ConfigError, match=r"unknown field of section pool 'size'; there are: "):
        rows_from(fields)


def test_a_column_of_ids_names_rows_in_memory() -> None:
    named = [{**record, "example_id": f"row-{place}"} for place, record in enumerate(RECORDS)]
    assert rows_from(named).example_ids == [record["example_id"] for record in named]
    assert rows_from(datasets.Dataset.from_list(named)).example_ids == rows_from(named).example_ids


def test_rows_of_tokens_remember_their_tokenizer(text_path: str) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(text_path)
    rows = rows_from([{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}], processing_class=tokenizer)
    assert rows.layout == "tokenized"
    assert rows.config.tokenizer == text_path


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ('{"path": ', ConfigError, r"pool is no JSON \(.*\): give a name, a file, or fields as JSON"),
        ({"paht": "x"}, ConfigError, r"unknown field of section pool 'paht' \(did you mean 'path'\?\)"),
        ({}, ConfigError, r"pool\.path is not set"),
        (3, DataError, r"pool must be a name, a file, a datasets\.Dataset, a list of rows, .* got a int"),
        (["a", "b"], DataError, r"pool must be a name, .* got a list"),
        ([], DataError, r"pool must be a name, .* got a list"),
        (
            datasets.DatasetDict(
                {"train": datasets.Dataset.from_list(RECORDS), "test": datasets.Dataset.from_list([])}
            ),
            DataError,
            r"pool has splits \(train, test\): give one of them, as a datasets\.Dataset",
        ),
    ],
)
def test_what_are_no_rows_is_refused(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        rows_from(source)
