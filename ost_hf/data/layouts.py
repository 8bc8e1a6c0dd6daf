"""The accepted layouts: which columns each needs, and how its cells become messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ost_hf.data.config import DatasetConfig
from ost_hf.data.example import Message, RowError
from ost_hf.data.parsing import as_messages, as_text, text_part
from ost_hf.data.pictures.files import cells_in
from ost_hf.errors import DataError, brief
from ost_hf.tables.statuses import BAD_ROW

TOKENIZED = "tokenized"
# The options that name a layout's columns, and their defaults.
_OPTIONS = {
    "messages": ("messages_column",),
    "prompt_completion": ("prompt_column", "completion_column"),
    "question_answer": ("question_column", "answer_column"),
}
_NAMES = {option: getattr(DatasetConfig, option) for options in _OPTIONS.values() for option in options}
# Layouts whose columns have the names that their inventors gave them: those needed, then those read if they are there.
_NEEDED = {TOKENIZED: ("input_ids", "labels"), "sharegpt": ("conversations",), "alpaca": ("instruction", "output")}
_READ_TOO = {TOKENIZED: ("attention_mask",), "sharegpt": ("system",), "alpaca": ("input", "system", "history")}
_LAYOUTS = (TOKENIZED, *_OPTIONS, "sharegpt", "alpaca")
# What ShareGPT sets call those who speak.
_ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model"), "assistant"),
    "system": "system",
    **dict.fromkeys(("tool", "function", "observation", "function_response"), "tool"),
}


def find_layout(columns: list[str], config: DatasetConfig) -> str:
    """The layout that fits the columns.

    Raises:
        DataError: If none does; it lists the layouts.
    """
    named = [option for option, default in _NAMES.items() if getattr(config, option) != default]
    # What is named is meant: a set may have `messages` beside the columns that are asked for.
    meant = [layout for layout in _OPTIONS if set(_OPTIONS[layout]) & set(named)]
    for layout in meant or _LAYOUTS:
        if set(_needed(layout, config)) <= set(columns):
            return layout
    for option in _OPTIONS[meant[0]] if meant else ():
        require_columns([getattr(config, option)], columns, option)
    raise DataError(
        f"no accepted layout fits the columns {', '.join(columns)}. Needed: {config.messages_column!r}; or "
        f"{config.prompt_column!r} and {config.completion_column!r}; or {config.question_column!r} and "
        f"{config.answer_column!r}; or 'input_ids' and 'labels'; or 'conversations' (ShareGPT); or 'instruction' and "
        "'output' (Alpaca). Column names can be set "
        "(messages_column, prompt_column, completion_column, question_column, answer_column)"
    )


def content_columns(layout: str, columns: Iterable[str], config: DatasetConfig) -> list[str]:
    """The columns among ``columns`` in which a layout's text or tokens stand."""
    there = set(columns)
    return [*_needed(layout, config), *(name for name in _READ_TOO.get(layout, ()) if name in there)]


def text_columns(config: DatasetConfig) -> set[str]:
    """The columns that hold text, paths or names in any layout: what stands in them is kept as it is written."""
    names = {getattr(config, option) for option in _NAMES}
    for layout in ("sharegpt", "alpaca"):
        names |= {*_NEEDED[layout], *_READ_TOO[layout]}
    return names | {"images", "image"} | {name for name in (config.images_column, config.id_column) if name}


def require_columns(needed: list[str], columns: list[str], option: str) -> None:
    """Raises ``DataError`` for a column that an option names and the data lacks."""
    missing = [name for name in needed if name not in columns]
    if missing:
        raise DataError(f"{option}: there is no column {missing[0]!r}; there are: {', '.join(columns)}")


def messages_of(
    layout: str, record: Mapping[str, Any], features: Mapping[str, Any], config: DatasetConfig
) -> tuple[list[Message], bool]:
    """What a row says.

    Args:
        layout: Not that of tokens.
        record: The row's cells.
        features: The columns' types, as ``datasets`` has them: they say how a number was written.
        config: The columns' names.

    Returns:
        The messages, and whether only a chat template can join them (false for plain texts).

    Raises:
        RowError: If the row is malformed (``bad_row``).
    """
    if layout == "messages":
        return as_messages(from_sharegpt(from_json(record[config.messages_column])), "user"), True
    if layout == "sharegpt":
        conversation = from_sharegpt(from_json(record["conversations"]))
        return [*_system(record), *as_messages(conversation, "user")], True
    first, second = (as_text(record[name], features.get(name)) for name in _needed(layout, config))
    templated = not (isinstance(first, str) and isinstance(second, str))
    before: list[Message] = []
    if layout == "alpaca":
        first = _with_input(first, as_text(record.get("input"), features.get("input")))
        before = [*_system(record), *_history(from_json(record.get("history")))]
    messages = as_messages(first, "user") + as_messages(second, "assistant")
    return [*before, *messages], templated or bool(before)


def from_json(value: Any) -> Any:
    """A list that a table without lists, such as a CSV, holds as JSON text; what is no such text stays as it is.

    Raises:
        RowError: If the text begins like a list of messages and is no JSON.
    """
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        read = json.loads(value)
    except ValueError as error:
        if value.lstrip()[1:].lstrip().startswith("{"):
            raise RowError(BAD_ROW, f"the text begins like a list of messages, but is no JSON: {error}") from error
        return value
    return read if isinstance(read, list) and all(isinstance(each, (dict, list)) for each in read) else value


def pictures_of(value: Any) -> list[Any]:
    """The pictures of a cell: of one or several, or of JSON text that lists their files."""
    if isinstance(value, str) and value.lstrip().startswith('["'):
        try:
            return cells_in(json.loads(value))
        except ValueError:  # a file's name may begin like this
            pass
    return cells_in(value)


def from_sharegpt(value: Any) -> Any:
    """Messages with ``from`` and ``value`` as messages with ``role`` and ``content``; others stay as they are.

    Raises:
        RowError: If it is not known who speaks (``bad_row``).
    """
    if not isinstance(value, list):
        return value
    return [_from_sharegpt(each) if isinstance(each, dict) else each for each in value]


def _needed(layout: str, config: DatasetConfig) -> tuple[str, ...]:
    return _NEEDED.get(layout) or tuple(getattr(config, option) for option in _OPTIONS[layout])


def _from_sharegpt(message: dict[str, Any]) -> dict[str, Any]:
    # Arrow gives all messages of a column all keys: those that a message does not use are null.
    if message.get("role") is not None or message.get("from") is None:
        return message
    speaker = message["from"]
    role = _ROLES.get(speaker.strip().lower()) if isinstance(speaker, str) else None
    if role is None:
        raise RowError(BAD_ROW, f"a message is from {brief(repr(speaker))[:80]}; known are {', '.join(_ROLES)}")
    rest = {key: value for key, value in message.items() if key not in ("from", "value", "role", "content")}
    content = message.get("value") if message.get("value") is not None else message.get("content")
    return {"role": role, "content": content, **rest}


def _with_input(instruction: Any, given: Any) -> Any:
    """Alpaca's instruction and, below it, what it is about."""
    if given is None or (isinstance(given, str) and not given.strip()):
        return instruction
    if not (isinstance(instruction, str) and isinstance(given, str)):
        raise RowError(BAD_ROW, f"instruction and input must be text, input is {type(given).__name__}")
    return f"{instruction}\n\n{given}"


def _system(record: Mapping[str, Any]) -> list[Message]:
    system = record.get("system")
    if system is None or (isinstance(system, str) and not system.strip()):
        return []
    if not isinstance(system, str):
        raise RowError(BAD_ROW, f"system must be text, got {type(system).__name__}")
    return [{"role": "system", "content": [text_part(system)]}]


def _history(turns: Any) -> list[Message]:
    """Earlier turns as Alpaca sets give them: pairs of an instruction and its answer."""
    if turns is None or (isinstance(turns, str) and not turns.strip()):
        return []
    is_pairs = isinstance(turns, list) and all(isinstance(turn, list) and len(turn) == 2 for turn in turns)
    if not is_pairs or not all(isinstance(text, str) for turn in turns for text in turn):
        raise RowError(BAD_ROW, "history must be a list of pairs of texts: an instruction and its answer")
    return [message for asked, said in turns for message in as_messages(asked, "user") + as_messages(said, "assistant")]
