"""Pictures stand where the text says, and what does not agree is a status."""

from __future__ import annotations

from typing import Any

import pytest

from ost_hf.data.example import RowError
from ost_hf.data.placement import place_images

PICTURE = "*"


def placed(turns: list[str], images: list[Any], has_column: bool = True) -> tuple[list[str], list[Any]]:
    """The turns of user and assistant, with a star for each picture, and the pictures in order."""
    messages = [
        {"role": ("user", "assistant")[number % 2], "content": [{"type": "text", "text": text}]}
        for number, text in enumerate(turns)
    ]
    images = place_images(messages, images, has_column)
    return ["".join(part.get("text", PICTURE) for part in message["content"]) for message in messages], images


@pytest.mark.parametrize(
    ("turns", "images", "expected", "order"),
    [
        (["<image>\nwhich?", "red"], ["a"], ["*\nwhich?", "red"], ["a"]),
        (
            ["which is <image>?", "red", "and <image>?", "blue"],
            ["a", "b"],
            ["which is *?", "red", "and *?", "blue"],
            "ab",
        ),
        (["<image><image>", "red"], ["a", "b"], ["**", "red"], "ab"),
        (["<image 2> or <image 1>?", "red"], ["a", "b"], ["* or *?", "red"], "ba"),
        (["<image1> <image_2> <image-3>", "red"], ["a", "b", "c"], ["* * *", "red"], "abc"),
        (["<image0> <image1>", "red"], ["a", "b"], ["* *", "red"], "ab"),
        (["which?", "red"], ["a", "b"], ["**which?", "red"], "ab"),
        (["which?", "![f](<image>)"], ["a"], ["*which?", "![f](<image>)"], "a"),
        (["which? <images>", "<image 1>"], ["a"], ["*which? <images>", "<image 1>"], "a"),
    ],
)
def test_pictures_stand_where_the_text_says(
    turns: list[str], images: list[str], expected: list[str], order: Any
) -> None:
    assert placed(turns, images) == (expected, list(order))


def test_without_a_column_of_images_the_placeholder_is_a_word() -> None:
    assert placed(["what does <image> mean in SVG?", "a picture"], [], has_column=False)[1] == []


@pytest.mark.parametrize(
    ("turns", "images", "reason"),
    [
        (["<image>", "red"], [], "1 image placeholders but 0 images"),
        (["<image> <image>", "red"], ["a"], "2 image placeholders but 1 images"),
        (["<image>", "red", "<image>", "blue"], ["a", "b", "c"], "2 image placeholders but 3 images"),
        (["<image 1> and again <image 1>", "red"], ["a", "b"], "each of the 2 images must be named once"),
        (["<image 1> <image>", "red"], ["a", "b"], "1, without a number; each of the 2 images must be named once"),
        (["<image 2> <image 3>", "red"], ["a", "b"], "each of the 2 images must be named once"),
        (["<image>", "red"], [None], "the image is missing"),
    ],
)
def test_what_does_not_agree_is_a_bad_image(turns: list[str], images: list[Any], reason: str) -> None:
    with pytest.raises(RowError, match=reason) as caught:
        placed(turns, images)
    assert caught.value.status == "bad_image"
