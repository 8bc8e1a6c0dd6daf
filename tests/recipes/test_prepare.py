"""The preparation of public multimodal maths, on rows of the same shape."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import datasets
import pytest

from ost_hf.data.rows import Rows


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    path = Path(__file__).parents[2] / "recipes" / "qwen3_vl_math" / "prepare.py"
    spec = importlib.util.spec_from_file_location("prepare", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def raw(pool_dataset: datasets.Dataset) -> datasets.Dataset:
    """FineVision's columns; every image is in two rows."""
    records = [
        {
            "images": [row["image"]],
            "texts": [{"user": f"{row['question']} {turn}", "assistant": row["answer"]}],
            "rating": 1,
        }
        for row in pool_dataset
        for turn in range(2)
    ]
    texts = datasets.List({"user": datasets.Value("string"), "assistant": datasets.Value("string")})
    features = {"images": datasets.List(datasets.Image()), "texts": texts, "rating": datasets.Value("int64")}
    dataset = datasets.Dataset.from_list(records, features=datasets.Features(features))
    return dataset.cast_column("images", datasets.List(datasets.Image(decode=False)))


def test_rows_become_messages_that_we_accept(prepare: ModuleType, raw: datasets.Dataset) -> None:
    rows = Rows(prepare.to_rows(raw, "geo"))
    assert rows.layout == "messages"
    example = rows[1]
    assert [message["role"] for message in example.messages] == ["user", "assistant"]
    assert len(example.images) == 1
    assert set(rows.dataset["source"]) == {"geo"}


def test_no_image_is_on_two_sides(prepare: ModuleType, raw: datasets.Dataset) -> None:
    sides = prepare.split(prepare.to_rows(raw, "geo"), held_out=20, test=30, seed=0)
    keys = [set(side["image_key"]) for side in sides]
    assert [len(side) for side in sides[1:]] == [20, 30]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    assert len(sides[0]) > 0


def test_too_few_rows_are_an_error(prepare: ModuleType, raw: datasets.Dataset) -> None:
    with pytest.raises(ValueError, match="120 rows cannot give 100 held-out and 50 test rows and a pool"):
        prepare.split(prepare.to_rows(raw, "geo"), held_out=100, test=50, seed=0)
