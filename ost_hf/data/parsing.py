"""Cells to the common shape: texts and lists of messages, and tokens."""

from __future__ import annotations

import math
from datetime import date, time
from decimal import Decimal
from typing import Any

import numpy as np

from ost_hf.data.chat.arguments import tool_calls_of, without_nulls
from ost_hf.data.example import Message, RowError
from ost_hf.tables.statuses import BAD_ROW

MASK = "attention_mask"


def tokens_of(record: dict[str, Any]) -> dict[str, list[int]]:
    """``input_ids`` and ``labels`` without the padding of a batch that the row was once in.

    Raises:
        RowError: If they are no whole numbers, or not as many as each other (``bad_row``).
    """
    ids, labels = _whole_numbers(record, "input_ids"), _whole_numbers(record, "labels")
    mask = list(record.get(MASK) or [1] * len(ids))
    if len(labels) != len(ids) or len(mask) != len(ids) or not any(mask):
        raise RowError(BAD_ROW, "input_ids, labels and attention_mask must be of the same length and not empty")
    real = [place for place, value in enumerate(mask) if value]
    return {"input_ids": [ids[place] for place in real], "labels": [labels[place] for place in real]}


def _whole_numbers(record: dict[str, Any], column: str) -> list[int]:
    values = record[column]
    if values is None:
        return []
    strange = [value for value in as_list(values) if type(value) is not int]
    if strange:
        raise RowError(BAD_ROW, f"{column} must be whole numbers, not {type(strange[0]).__name__}")
    return as_list(values)


def as_list(value: Any) -> list[Any]:
    """A cell of one value or several as a list; of none, an empty one."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


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
        return _of_utf8(bytes(value))
    return str(value) if isinstance(value, (date, time)) else value


def _float_text(value: float, dtype: str) -> str:
    """The shortest text that is read as this number again, in the precision that the column has."""
    return str(getattr(np, dtype)(value)) if dtype in ("float16", "float32") else repr(value)


def _class_name(value: int, feature: Any) -> str | None:
    """A class by its name; -1 is how ``datasets`` says that there is none."""
    return feature.names[value] if 0 <= value < len(feature.names) else None


def _of_utf8(value: bytes) -> str:
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
    return [_as_message(message) for message in value]


def _as_message(message: dict[str, Any]) -> Message:
    if not isinstance(message.get("role"), str):
        sharegpt = "from" in message and "value" in message
        hint = ": rename ShareGPT's from and value to role and content, human to user, gpt to assistant"
        raise RowError(BAD_ROW, "a message has no role" + (hint if sharegpt else ""))
    extra = {k: without_nulls(v) for k, v in message.items() if k not in ("role", "content") and v is not None}
    if "tool_calls" in extra:
        extra["tool_calls"] = tool_calls_of(extra["tool_calls"])
    return {"role": message["role"], "content": _content_parts(message.get("content")), **extra}


def _content_parts(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [text_part(content)]
    if content is not None and not (isinstance(content, list) and all(isinstance(part, dict) for part in content)):
        raise RowError(BAD_ROW, "the content of a message must be text or a list of typed parts")
    # Arrow gives every struct all keys; the ones a part does not use are None.
    parts = [{k: v for k, v in part.items() if v is not None} for part in content or []]
    for part in parts:
        if part.get("type") not in ("text", "image"):
            raise RowError(BAD_ROW, f"content parts may be text or image, not {str(part.get('type'))[:50]}")
        if part["type"] == "text" and not isinstance(part.get("text", ""), str):
            raise RowError(BAD_ROW, f"the text of a content part must be text, not {type(part['text']).__name__}")
    return parts
