"""The errors users meet, and the checks configurations share.

Every message says what was given, what is allowed, and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class OSTError(ValueError):
    """Base class of all errors that a user can cause and mend."""


class ConfigError(OSTError):
    """A configuration value, or a combination of values, that is not allowed."""


class DataError(OSTError):
    """Rows that cannot be used as asked: a missing column, an empty pool, anchors inside the pool."""


class ModelError(OSTError):
    """A model that cannot serve as asked: no adaptable layers, no chat template, another tokenizer."""


class RunDirectoryError(OSTError):
    """A run directory that belongs to another configuration or dataset, or lacks a stage's table."""


# Of what is said about one row, in characters.
DETAIL_LENGTH = 300
# What is read of a message: Python shows a picture's bytes in four characters each.
_READ = 4096
_CLEANED = (
    (re.compile(r"""\bb(['"])(?:\\.|(?!\1).)*(?:\1|$)""", re.DOTALL), "[bytes]"),
    (re.compile(r"[A-Za-z0-9+/_=-]{120,}"), "[...]"),
    (re.compile(r"(?: object)? at 0x[0-9a-fA-F]+|\b0x[0-9a-fA-F]{6,}\b"), ""),
    # The last name of an absolute path says which file; what stands before it is this machine's own business.
    (re.compile(r"""(['"])(?:file:/{0,2})?(?:/|[A-Za-z]:\\)[^'"\n]*[/\\]([^'"/\\\n]+)[/\\]*\1"""), r"\1\2\1"),
    (re.compile(r"(?<![\w:/.~<])(?:file:/{0,2})?/(?:[^\s/'\"<>]+/+)+(?=[^\s/'\"<>])"), ""),
    (re.compile(r"(?<!\w)[A-Za-z]:\\(?:[^\s\\'\"]+\\+)*"), ""),
    (re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\s]+"), " "),
)


def brief(text: str) -> str:
    """What is said about a row, made short and clean.

    No bytes of a picture, no address in memory, no folder of this machine, no line breaks; at most ``DETAIL_LENGTH``
    characters.
    """
    text = text[:_READ]
    for pattern, instead in _CLEANED:
        text = pattern.sub(instead, text)
    text = text.strip()
    return text if len(text) <= DETAIL_LENGTH else text[: DETAIL_LENGTH - 4].rstrip() + " ..."


def reason_of(error: BaseException) -> str:
    """An exception's type and message in brief."""
    try:
        said = str(error)
    except Exception:  # a message that cannot be made: its type must do
        said = ""
    return brief(f"{type(error).__name__}: {said}" if said else type(error).__name__)


def require_choice(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Raises ``ConfigError`` unless ``value`` is one of ``allowed``."""
    allowed = list(allowed)
    if value not in allowed:
        raise ConfigError(
            f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}{_hint(value, allowed)}"
        )


def require_range(
    name: str,
    value: float | None,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> None:
    """Raises ``ConfigError`` unless ``value`` is a number inside the given bounds; ``None`` passes."""
    if value is None:
        return
    bounds = [("> ", above), (">= ", at_least), ("<= ", at_most)]
    wanted = " and ".join(f"{sign}{bound}" for sign, bound in bounds if bound is not None)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    inside = is_number and (
        (above is None or value > above)
        and (at_least is None or value >= at_least)
        and (at_most is None or value <= at_most)
    )
    if not inside:
        raise ConfigError(f"{name} must be a number {wanted}, got {value!r}")


def require_integer(name: str, value: Any, *, at_least: int, remedy: str = "", optional: bool = False) -> None:
    """Raises ``ConfigError`` unless ``value`` is an integer, and as large; ``None`` passes where it is optional.

    Args:
        name: What the message calls it.
        value: What was given.
        at_least: The lowest that is allowed.
        remedy: What to do about it, in the message.
        optional: Whether ``None`` stands for a default.
    """
    if optional and value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ConfigError(f"{name} must be an integer >= {at_least}, got {value!r}{remedy and ': '}{remedy}")


def require_known(what: str, given: Iterable[Any], allowed: Iterable[str]) -> None:
    """Raises ``ConfigError`` for the first of the ``given`` keys that is not among those ``allowed``."""
    allowed = list(allowed)
    for key in given:
        if key not in allowed:
            raise ConfigError(unknown_key(what, str(key), allowed))


def unknown_key(what: str, key: str, allowed: Iterable[str]) -> str:
    """The message for a key that does not exist: names the nearest one and all that do."""
    allowed = sorted(allowed)
    return f"unknown {what} {key!r}{_hint(key, allowed)}; there are: {', '.join(allowed)}"


def _hint(value: Any, allowed: list[str]) -> str:
    near = get_close_matches(str(value), allowed, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
