"""The errors users meet, and the checks configurations share.

Every message says what was given, what is allowed, and what to do.
"""

from __future__ import annotations

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
