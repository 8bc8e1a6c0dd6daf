"""Where the images of a row stand: at image parts, at placeholders in the text, or before the first question."""

from __future__ import annotations

import re
from typing import Any

from ost_hf.data.example import Message, RowError
from ost_hf.tables.statuses import BAD_IMAGE, BAD_ROW

# <image>, and <image 1>, <image1>, <image_1>, <image-1>.
_PLACEHOLDER = re.compile(r"<image(?:[ _-]?(\d{1,4}))?>")


def place_images(messages: list[Message], column_images: list[Any], has_column: bool = True) -> list[Any]:
    """Matches image parts with images. Without parts, placeholders in the text say where the images stand.

    Without these too, the images open the first user message. In an assistant's turn a placeholder is text.

    Args:
        messages: The conversation, changed in place.
        column_images: The images of the row's column.
        has_column: Whether there is such a column. In a dataset without images, ``<image>`` is a word.

    Returns:
        The images in the order of the image parts, which are left bare.

    Raises:
        RowError: If the images and their places do not agree (``bad_image``).
    """
    parts = [part for message in messages for part in message["content"] if part.get("type") == "image"]
    inline = [_inline_image(part) for part in parts]
    if parts and all(image is not None for image in inline):
        images = inline
    elif parts:
        _require_same_count(len(parts), len(column_images))
        images = column_images
    elif has_column and (numbers := placeholders(messages)):
        _require_same_count(len(numbers), len(column_images))
        images = _in_order(numbers, column_images)
        _open_placeholders(messages)
    else:
        images = column_images
        if images:
            user = next((message for message in messages if message["role"] == "user"), None)
            if user is None:
                raise RowError(BAD_ROW, "images but no user message to show them in")
            user["content"] = [*({"type": "image"} for _ in images), *user["content"]]
    for message in messages:
        message["content"] = [{"type": "image"} if p.get("type") == "image" else p for p in message["content"]]
    if any(image is None for image in images):
        raise RowError(BAD_IMAGE, "the image is missing")
    return images


def _inline_image(part: dict[str, Any]) -> Any | None:
    return next((part[key] for key in ("image", "path", "url") if part.get(key) is not None), None)


def _require_same_count(places: int, images: int) -> None:
    if places != images:
        raise RowError(BAD_IMAGE, f"{places} image placeholders but {images} images")


def _asked(messages: list[Message]) -> list[Message]:
    return [message for message in messages if message["role"] != "assistant"]


def placeholders(messages: list[Message]) -> list[str]:
    """The numbers of all placeholders in order, answers apart; an empty text for one without a number."""
    parts = [part for message in _asked(messages) for part in message["content"]]
    return [number for part in parts for number in _PLACEHOLDER.findall(part.get("text", ""))]


def _in_order(numbers: list[str], images: list[Any]) -> list[Any]:
    """The images in the order in which placeholders name them; those without numbers take the next one."""
    if not any(numbers):
        return images
    named = [int(number) for number in numbers if number]
    for first in (1, 0):
        if sorted(named) == list(range(first, first + len(images))):
            return [images[number - first] for number in named]
    raise RowError(
        BAD_IMAGE,
        f"the placeholders name the images {', '.join(number or 'without a number' for number in numbers)[:100]}; "
        f"each of the {len(images)} images must be named once",
    )


def _open_placeholders(messages: list[Message]) -> None:
    """Makes image parts of the placeholders, and text parts of what stands between them."""
    for message in _asked(messages):
        opened: list[dict[str, Any]] = []
        for part in message["content"]:
            place = 0
            for found in _PLACEHOLDER.finditer(part.get("text", "")):
                opened += _text_of(part, place, found.start())
                opened.append({"type": "image"})
                place = found.end()
            opened += [part] if place == 0 else _text_of(part, place, None)
        message["content"] = opened


def _text_of(part: dict[str, Any], start: int, end: int | None) -> list[dict[str, Any]]:
    text = part["text"][start:end]
    return [{**part, "text": text}] if text else []
