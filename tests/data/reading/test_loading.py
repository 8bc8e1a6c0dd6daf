"""Rows come from files, folders and saved datasets, and what cannot be loaded is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from ost_hf.data.config import DatasetConfig
from ost_hf.data.reading.loading import load_dataset
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError

RECORDS = [{"question": f"What is {i} + 1?", "answer": f"It is {i + 1}"} for i in range(5)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))


def write(path: Path) -> Path:
    dataset = datasets.Dataset.from_list(RECORDS)
    if path.suffix == ".parquet":
        dataset.to_parquet(path)
    elif path.suffix == ".csv":
        dataset.to_csv(path, index=False)
    elif path.suffix == ".json":
        path.write_text(json.dumps(RECORDS))
    else:
        path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return path


def load(path: Path, **config: Any) -> datasets.Dataset:
    return load_dataset(DatasetConfig(path=str(path), **config))


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl", "rows.json", "rows.csv", "ROWS.JSONL"])
def test_files_of_every_type_give_their_rows(tmp_path: Path, name: str) -> None:
    assert load(write(tmp_path / name)).to_list() == RECORDS


def test_folder_of_files_gives_its_rows(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl")
    assert load(tmp_path).to_list() == RECORDS


def test_image_folder_gives_rows_with_images(tmp_path: Path) -> None:
    for i, record in enumerate(RECORDS):
        Image.new("RGB", (32, 16), (i, 0, 0)).save(tmp_path / f"{i}.png")
        with (tmp_path / "metadata.jsonl").open("a") as file:
            file.write(json.dumps({"file_name": f"{i}.png", **record}) + "\n")
    rows = Rows.load(DatasetConfig(path=str(tmp_path)))
    assert rows.layout == "question_answer"
    assert [rows[i].messages[1]["content"][0]["text"] for i in range(5)] == [record["answer"] for record in RECORDS]
    assert all(len(rows[i].images) == 1 for i in range(5))
    assert len(set(rows.content_hashes)) == 5


def test_saved_dataset_gives_its_rows(tmp_path: Path) -> None:
    datasets.Dataset.from_list(RECORDS).save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved").to_list() == RECORDS


def test_saved_splits_are_told_apart(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_list(RECORDS)
    datasets.DatasetDict({"train": dataset, "held_out": dataset.select([4])}).save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved").to_list() == RECORDS
    assert load(tmp_path / "saved", split="held_out").to_list() == RECORDS[4:]


def test_saved_dataset_is_known_by_the_split_it_came_from(tmp_path: Path) -> None:
    datasets.Dataset.from_list(RECORDS, split="held_out").save_to_disk(tmp_path / "saved")
    assert load(tmp_path / "saved", split="held_out").to_list() == RECORDS


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "train.jsonl")
    assert load(Path("~/folder")).to_list() == RECORDS
    assert load(Path("~/folder/train.jsonl")).to_list() == RECORDS


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"split": "train[1:3]"}, RECORDS[1:3]),
        ({"split": "train[-1:]"}, RECORDS[4:]),
        ({"limit": 2}, RECORDS[:2]),
        ({"limit": 99}, RECORDS),
        ({"split": "train[1:]", "limit": 1}, RECORDS[1:2]),
    ],
)
def test_slices_and_limits_keep_the_first_rows(tmp_path: Path, config: Any, expected: Any) -> None:
    assert load(write(tmp_path / "rows.jsonl"), **config).to_list() == expected


def test_loaded_rows_have_the_ids_they_have_in_memory(tmp_path: Path) -> None:
    in_memory = Rows(datasets.Dataset.from_list(RECORDS)).example_ids
    for name in ("rows.parquet", "rows.jsonl", "rows.csv"):
        assert Rows.load(DatasetConfig(path=str(write(tmp_path / name)))).example_ids == in_memory


@pytest.mark.parametrize(("name", "content"), [("rows.txt", "hello"), ("rows", "hello"), ("rows.xlsx", "")])
def test_unknown_file_type_is_refused_with_the_known_ones(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"cannot read .*{name}: known file types are .*\.csv.*\.jsonl.*\.parquet"):
        load(tmp_path / name)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet", "rows.csv"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name} does not exist"):
        load(tmp_path / name)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot load .*nowhere"):
        load(tmp_path / "nowhere")


def test_missing_split_of_a_file_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot load .*rows\.jsonl.*\"test\".*\['train'\]"):
        load(write(tmp_path / "rows.jsonl"), split="test")


def test_missing_split_of_a_folder_is_named_with_those_there_are(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl")
    with pytest.raises(DataError, match=r"\"test\".*\['train'\]"):
        load(tmp_path, split="test")


def test_missing_saved_split_is_named_with_those_there_are(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": datasets.Dataset.from_list(RECORDS)}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="has no split 'test'; there are: train"):
        load(tmp_path / "saved", split="test")


@pytest.mark.parametrize("split", ["test", "train[:1]"])
def test_split_of_a_dataset_saved_without_splits_is_refused(tmp_path: Path, split: str) -> None:
    datasets.Dataset.from_list(RECORDS).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="was saved without splits"):
        load(tmp_path / "saved", split=split)


@pytest.mark.parametrize(
    ("name", "content"), [("rows.jsonl", ""), ("rows.csv", ""), ("rows.csv", "question,answer\n"), ("rows.json", "[]")]
)
def test_empty_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=name):
        load(tmp_path / name)


def test_empty_parquet_file_is_named(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"question": [], "answer": []}).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet"):
        load(tmp_path / "rows.parquet")


def test_empty_saved_dataset_is_named(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"question": [], "answer": []}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"saved \(split 'train'\) has no rows"):
        load(tmp_path / "saved")


def test_empty_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"cannot load .*empty"):
        load(tmp_path / "empty")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"question": "a", "ans')
    with pytest.raises(DataError, match=rf"cannot load .*{name}"):
        load(tmp_path / name)


def test_path_is_required() -> None:
    with pytest.raises(ConfigError, match="a dataset needs a path"):
        DatasetConfig(path="")


def test_limit_must_leave_rows() -> None:
    with pytest.raises(ConfigError, match="limit must be an integer >= 1, got 0"):
        DatasetConfig(path="x", limit=0)


def test_bare_numbers_in_a_csv_file_are_answers(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question,answer\n1 + 1?,2\n2 + 2?,4\n")
    rows = Rows.load(DatasetConfig(path=str(tmp_path / "rows.csv")))
    assert [rows[i].messages[1]["content"][0]["text"] for i in range(2)] == ["2", "4"]
