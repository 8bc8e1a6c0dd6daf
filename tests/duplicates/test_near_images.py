"""Near in pictures is the same picture again; another scan of the same digit is not."""

from __future__ import annotations

import itertools
import random
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import task
from PIL import Image, ImageDraw

from ost_hf.data.example import RowError
from ost_hf.data.images import open_image
from ost_hf.data.rows import Rows
from ost_hf.duplicates import near_images
from ost_hf.duplicates.config import DuplicatesConfig

sys.path.insert(0, str(Path(__file__).parent))

from planted import CHANGES, as_jpeg, groups, noisy, photo, picture_rows


@pytest.mark.parametrize("change", CHANGES)
def test_changed_scans_are_near_and_other_scans_are_not(change: str) -> None:
    """The same question and answer under each picture."""
    chosen = random.Random(3).sample(task.scans_of("pool"), 40)
    pictures = [task.picture(left, right) for left, right in zip(chosen[::2], chosen[1::2], strict=True)]
    changed = [CHANGES[change](picture) for picture in pictures]
    rows = picture_rows(*((picture, "Which is larger?", "answer: 7") for picture in [*pictures, *changed]))
    assert groups(rows) == [[number, number + 20] for number in range(20)]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_photographs_are_near_and_others_are_not(change: str) -> None:
    pictures = [photo(seed) for seed in range(12)]
    changed = [CHANGES[change](picture) for picture in pictures]
    rows = picture_rows(*((picture, "What is shown?", "A meadow.") for picture in [*pictures, *changed]))
    assert groups(rows) == [[number, number + 12] for number in range(12)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_clean_rows_of_the_demo_have_no_near_duplicates(seed: int) -> None:
    """One row of 600 would be a rate of 0.2 %: none is found, on scans that were drawn again and again."""
    rows = Rows(task.as_dataset(task.clean_rows(600, "pool", seed=seed)))
    assert groups(rows) == groups(rows, DuplicatesConfig()) == []


def test_other_scans_of_the_same_digits_are_not_near() -> None:
    """The hardest case: the same words, the same digits, and one of the two scans the same."""
    labels, scans = task._digits()[1], task.scans_of("pool")
    threes = [scan for scan in scans if labels[scan] == 3][:40]
    rows = picture_rows(*((task.picture(threes[0], scan), "The sum?", "answer: 6") for scan in threes))
    assert groups(rows) == []


def test_same_picture_under_another_question_is_not_near() -> None:
    one = photo(1)
    assert groups(picture_rows((one, "What is shown?", "A meadow."), (noisy(one), "Where is it?", "A meadow."))) == []


def test_colour_position_and_size_of_shapes_tell_pictures_apart() -> None:
    def shape(box: tuple[int, int, int, int], colour: str) -> Any:
        picture = Image.new("RGB", (120, 120), "white")
        ImageDraw.Draw(picture).rectangle(box, fill=colour)
        return picture

    boxes = [
        ((20, 20, 60, 60), "red"),
        ((20, 20, 60, 60), "blue"),
        ((50, 50, 90, 90), "red"),
        ((20, 20, 90, 90), "red"),
    ]
    assert groups(picture_rows(*((shape(*box), "What is it?", "A shape.") for box in boxes))) == []


def test_pictures_are_compared_one_by_one_in_their_order() -> None:
    a, b, c = photo(1), photo(2), photo(3)
    rows = picture_rows(
        ([a, b], "Alike?", "No."),
        ([noisy(a), as_jpeg(b)], "Alike?", "No."),
        ([b, a], "Alike?", "No."),
        ([a, c], "Alike?", "No."),
        ([a], "Alike?", "No."),
        ([a, b, c], "Alike?", "No."),
    )
    assert groups(rows) == [[0, 1]]


def test_a_damaged_picture_is_near_no_other() -> None:
    """PIL has more than one kind of error for them."""

    def in_its_second_chunk(data: bytes) -> bytes:
        place = data.index(b"IDAT", data.index(b"IDAT") + 4)
        return data[:place] + b"I\x00AT" + data[place + 4 :]

    grain = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8))
    rows = picture_rows(*((grain, "What is shown?", "A meadow.") for _ in range(4)))
    table = rows.dataset.data.table.to_pylist()
    for row, change in ((1, lambda data: data[:60]), (3, in_its_second_chunk)):
        picture = table[row]["images"][0]
        picture["bytes"] = change(picture["bytes"])
    damaged = datasets.Dataset.from_list(table, features=rows.dataset.features)
    assert groups(Rows(damaged)) == [[0, 2]]
    with pytest.raises(RowError, match="broken PNG"):
        open_image(table[3]["images"][0], None)


def test_row_without_a_picture_is_not_near_one_with_it() -> None:
    dataset = datasets.Dataset.from_list(
        [
            {"images": [], "question": "What?", "answer": "That."},
            {"images": [photo(1)], "question": "What?", "answer": "That."},
        ],
        features=picture_rows((photo(1), "", "")).dataset.features,
    )
    assert groups(Rows(dataset)) == []


def test_unreadable_pictures_are_near_nothing() -> None:
    dataset = picture_rows((photo(1), "What?", "That."), (photo(2), "What?", "That.")).dataset
    records = dataset.cast_column("images", datasets.List(datasets.Image(decode=False))).to_list()
    for number, record in enumerate(records):
        record["images"][0] = {"bytes": f"broken {number}".encode(), "path": None}
    assert groups(Rows(datasets.Dataset.from_list(records, features=dataset.features))) == []


@pytest.mark.parametrize("similarity", [0.5, 0.9, 0.97])
def test_small_pictures_rule_out_no_near_ones(similarity: float) -> None:
    pictures = [photo(seed) for seed in range(8)] + [task.picture(scan, scan) for scan in range(8)]
    changed = [change(picture) for picture in pictures for change in (lambda same: same, *CHANGES.values())]
    looks = [near_images.look_at(picture) for picture in changed]
    pairs = list(itertools.combinations(looks, 2))
    small = (np.stack([pair[side].small for pair in pairs]) for side in (0, 1))
    contrast = np.array([max(a.contrast, b.contrast) for a, b in pairs])
    possible = near_images.may_be_near(*small, contrast, similarity)
    is_near = np.array([near_images.is_near([a], [b], similarity) for a, b in pairs])
    assert is_near.any()
    assert possible[is_near].all()
    assert possible.mean() < 0.5
