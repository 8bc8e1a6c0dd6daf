"""What rows give a chat template beside their messages: tools, documents, arguments by name; and tool calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ost_hf.data.example import RowError
from ost_hf.tables.statuses import BAD_ROW

# Columns that are read for the template, in any layout but tokens; the last as TRL names it.
TOOLS, DOCUMENTS, BY_NAME = COLUMNS = ("tools", "documents", "chat_template_kwargs")

# What the encoder itself says to the template.
_TAKEN = ("messages", "conversation", "add_generation_prompt", "continue_final_message", "chat_template", "tokenize")


def arguments_of(record: dict[str, Any]) -> dict[str, Any]:
    """The template's arguments in a row; those that are empty are left out.

    Cells may be JSON. Nulls inside them are Arrow's, which gives every mapping all keys, and are left out.

    Raises:
        RowError: If a cell holds something else (``bad_row``).
    """
    arguments = {name: _from_json(record[name], name) for name in COLUMNS if record.get(name) is not None}
    arguments = {name: value for name, value in arguments.items() if value}
    tools = arguments.get(TOOLS)
    if tools is not None:
        tools = [tools] if isinstance(tools, dict) else tools
        if not isinstance(tools, list):
            raise RowError(BAD_ROW, f"tools must be a list of mappings, or JSON of one, not {type(tools).__name__}")
        arguments[TOOLS] = [_mapping(tool, "each of the tools") for tool in tools]
    if DOCUMENTS in arguments and not isinstance(arguments[DOCUMENTS], list):
        raise RowError(BAD_ROW, f"documents must be a list, not {type(arguments[DOCUMENTS]).__name__}")
    by_name = _mapping(arguments.pop(BY_NAME, {}), BY_NAME)
    taken = [name for name in by_name if name in _TAKEN or name in arguments]
    if taken:
        raise RowError(BAD_ROW, f"{BY_NAME} may not set {taken[0]}")
    return {**arguments, **by_name}


def tool_calls_of(value: Any) -> list[dict[str, Any]]:
    """A message's tool calls, without the nulls that Arrow adds inside their arguments.

    Raises:
        RowError: If they are not mappings (``bad_row``).
    """
    calls = _from_json(value, "tool_calls") or []
    calls = [calls] if isinstance(calls, dict) else calls
    if not isinstance(calls, list):
        raise RowError(BAD_ROW, f"tool_calls must be a list of mappings, not {type(calls).__name__}")
    return [_mapping(call, "each of the tool_calls") for call in calls]


def without_nulls(value: Any) -> Any:
    """Mappings without their empty keys, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [without_nulls(item) for item in value]
    return value


def _from_json(value: Any, name: str) -> Any:
    """JSON as what it says, nulls and all; what is no text, without nulls."""
    if not isinstance(value, str):
        return without_nulls(value)
    if not value.strip():
        return None
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RowError.of(error, f"{name} is text, but no JSON") from error


def _mapping(value: Any, name: str) -> dict[str, Any]:
    value = _from_json(value, name) if isinstance(value, str) else value
    if not isinstance(value, dict):
        raise RowError(BAD_ROW, f"{name} must be a mapping, or JSON of one, not {type(value).__name__}")
    return value
