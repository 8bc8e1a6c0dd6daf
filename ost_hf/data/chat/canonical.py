"""One form for conversations that a template renders alike, however they are stored: what an id is made of."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

from ost_hf.data.example import Message


def canonical_messages(messages: list[Message]) -> list[Message]:
    """Messages with neighbouring texts joined and arguments of calls as mappings, without what is empty."""
    return [_canonical(message) for message in messages]


def in_order(value: Any) -> Any:
    """Mappings as pairs, at any depth: templates write keys in their order."""
    if isinstance(value, dict):
        return ["mapping", *([key, in_order(item)] for key, item in value.items())]
    return [in_order(item) for item in value] if isinstance(value, list) else value


def _canonical(message: Message) -> Message:
    found = {**message, "content": _joined(message["content"])}
    calls = found.pop("tool_calls", None)
    return {**found, "tool_calls": [in_order(_call(call)) for call in calls]} if calls else found


def _joined(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    joined: list[dict[str, Any]] = []
    for is_text, run in groupby(parts, lambda part: part.keys() == {"type", "text"} and part["type"] == "text"):
        of_run = list(run)
        text = "".join(part["text"] for part in of_run) if is_text else ""
        joined += [{"type": "text", "text": text}] if text else [] if is_text else of_run
    return joined


def _call(call: Any) -> Any:
    """A call whose arguments are no text, if this is JSON of a mapping."""
    if not isinstance(call, dict):
        return call
    found = {name: _call(value) if name == "function" else value for name, value in call.items()}
    if isinstance(found.get("arguments"), str):
        try:
            value = json.loads(found["arguments"])
        except ValueError:
            return found
        found["arguments"] = value if isinstance(value, dict) else found["arguments"]
    return found
