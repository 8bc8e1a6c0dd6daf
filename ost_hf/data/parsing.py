"""Cells to the common shape: texts and lists of messages, images and where they stand, tokens."""

from __future__ import annotations

import math
from datetime import date, time
from decimal import Decimal
from typing import Any

import numpy as np

from ost_hf.data.example import Message, RowError
from ost_hf.tables.statuses import BAD_IMAGE, BAD_ROW

MASK = "attention_mask"


def tokens_of(record: dict[str, Any]) -> dict[str, list[int]]:
    """``input_ids`` and ``labels`` without the padding of a batch that the row was once in."""
    ids, labels = list(record["input_ids"] or []), list(record["labels"] or [])
    mask = list(record.get(MASK) or [1] * len(ids))
    if len(labels) != len(ids) or len(mask) != len(ids) or not any(mask):
        raise RowError(BAD_ROW, "input_ids, labels and attention_mask must be of the same length and not empty")
    real = [place for place, value in enumerate(mask) if value]
    return {"input_ids": [ids[place] for place in real], "labels": [labels[place] for place in real]}


def as_text(value: Any, feature: Any = None) -> Any:
    """A value as the text that was written for it: readers of CSV and JSON make numbers of bare answers.

    Booleans, dates, times and decimals are written as Python does. What is no single value stays as it is.

    Args:
        value: A cell.
        feature: Its column's type, as ``datasets`` has it: the name of a class, the digits of a short float.
    """
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        # One empty cell turns a CSV's whole numbers into floats: 2.0 was written 2.
        return str(int(value)) if value.is_integer() else _float_text(value, getattr(feature, "dtype", ""))
    if isinstance(value, int):
        return _class_name(value, feature) if hasattr(feature, "int2str") else str(value)
    if isinstance(value, Decimal) and value.is_finite():
        return format(value, "f")
    if isinstance(value, (bytes, bytearray)):
        return _decoded(bytes(value))
    return str(value) if isinstance(value, (date, time)) else value


def _float_text(value: float, dtype: str) -> str:
    """The shortest text that is read as this number again, in the precision that the column has."""
    return str(getattr(np, dtype)(value)) if dtype in ("float16", "float32") else repr(value)


def _class_name(value: int, feature: Any) -> str | None:
    """A class by its name; -1 is how ``datasets`` says that there is none."""
    return feature.names[value] if 0 <= value < len(feature.names) else None


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise RowError(BAD_ROW, f"the text is bytes that are no UTF-8: {error.reason}") from error


def text_part(text: str) -> dict[str, Any]:
    """A message's content part that is a text."""
    return {"type": "text", "text": text}


def as_messages(value: Any, role: str) -> list[Message]:
    """A string becomes one message of ``role``; a list of messages gets its content typed.

    Raises:
        RowError: If it is neither (``bad_row``).
    """
    if isinstance(value, str):
        return [{"role": role, "content": [text_part(value)]}]
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise RowError(BAD_ROW, f"expected text or a list of messages, got {type(value).__name__}")
    messages = []
    for message in value:
        if not isinstance(message.get("role"), str):
            sharegpt = "from" in message and "value" in message
            hint = ": rename ShareGPT's from and value to role and content, human to user, gpt to assistant"
            raise RowError(BAD_ROW, "a message has no role" + (hint if sharegpt else ""))
        content = message.get("content")
        if isinstance(content, str):
            parts = [text_part(content)]
        elif content is None or (isinstance(content, list) and all(isinstance(part, dict) for part in content)):
            # Arrow gives every struct all keys; the ones a part does not use are None.
            parts = [{k: v for k, v in part.items() if v is not None} for part in content or []]
        else:
            raise RowError(BAD_ROW, "the content of a message must be text or a list of typed parts")
        strange = [str(part.get("type")) for part in parts if part.get("type") not in ("text", "image")]
        if strange:
            raise RowError(BAD_ROW, f"content parts may be text or image, not {strange[0]}")
        extra = {k: v for k, v in message.items() if k not in ("role", "content") and v is not None}
        messages.append({"role": message["role"], "content": parts, **extra})
    return messages


def place_images(messages: list[Message], column_images: list[Any]) -> list[Any]:
    """Matches image parts with images; without parts, the images open the first user message.

    Returns:
        The images in the order of the image parts, which are left bare.
    """
    parts = [part for message in messages for part in message["content"] if part.get("type") == "image"]
    inline = [_inline_image(part) for part in parts]
    if parts and all(image is not None for image in inline):
        images = inline
    elif parts:
        if len(parts) != len(column_images):
            raise RowError(BAD_IMAGE, f"{len(parts)} image placeholders but {len(column_images)} images")
        images = column_images
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
