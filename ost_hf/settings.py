"""Configurations as mappings and back: one coercer for YAML, flags, JSON and Python.

A configuration is a frozen dataclass whose fields have a ``help`` text in their metadata. One with sections that are
not known before (the options of a scorer, say) has a class method ``from_mapping`` and a method ``to_mapping`` of its
own. Standard library only: ``--help`` reads this.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from enum import Enum
from typing import Any, TypeVar

from ost_hf.errors import ConfigError, require_known

Section = dict[str, Any]
T = TypeVar("T")

_PLAIN = {type(None), bool, int, float, str, list, dict}


def remembers_given(cls: type[T]) -> type[T]:
    """Lets instances of a dataclass know which fields the caller has given: an explicit default is not lost."""
    init = cls.__init__
    names = [item.name for item in fields(cls) if item.init]  # type: ignore[arg-type]

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        object.__setattr__(self, "_given", frozenset((*names[: len(args)], *kwargs)))
        init(self, *args, **kwargs)

    cls.__init__ = __init__  # type: ignore[method-assign]
    return cls


def given_fields(name: str, value: Any, cls: type) -> Section:
    """What was given of a section: the fields of a mapping, or those that an instance was made with.

    Args:
        name: What messages call the section.
        value: ``None``, a mapping (a section in it may be an instance of its own class), or an instance of ``cls``.
        cls: The section's class, decorated with :func:`remembers_given`.

    Raises:
        ConfigError: For anything else.
    """
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {key: as_mapping(each, only_given=True) if _is_instance(each) else each for key, each in value.items()}
    if isinstance(value, cls):
        return as_mapping(value, only_given=True)
    raise ConfigError(f"{name} must hold fields and values, or be a {cls.__name__}, got {value!r}")


def changed(config: T, **changes: Any) -> T:
    """A copy with other fields, which count as given; of the rest as much does as did before."""
    made: T = replace(config, **changes)  # type: ignore[type-var]
    given = getattr(config, "_given", None)
    if given is not None:
        object.__setattr__(made, "_given", given | set(changes))
    return made


def build(cls: type[T], values: Any, where: str) -> T:
    """Makes a configuration of a mapping.

    Args:
        cls: The dataclass.
        values: Fields and values.
        where: The section's name for messages, such as ``scoring.judge``.

    Raises:
        ConfigError: For an unknown field, a missing one, a value of another type, or one that is not allowed.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"section {where} must hold fields and values, got {values!r}")
    own: Any = getattr(cls, "from_mapping", None)
    made: T = cls(**coerced(cls, values, where)) if own is None else own(values, where)
    return made


def coerced(cls: type, values: Mapping[str, Any], where: str) -> Section:
    """The values of a mapping in the types of a dataclass's fields; raises as :func:`build` does."""
    hints = typing.get_type_hints(cls)
    allowed = {item.name: item for item in fields(cls) if item.init}
    require_known(f"field of section {where}", values, allowed)
    for key, item in allowed.items():
        if item.default is MISSING and item.default_factory is MISSING and key not in values:
            raise ConfigError(f"{where}.{key} is not set: {item.metadata.get('help', 'it has no default')}")
    return {key: typed(f"{where}.{key}", value, kinds_of(hints[key])) for key, value in values.items()}


def typed(name: str, value: Any, kinds: list[Any]) -> Any:
    """``value`` in one of some types; an integer serves as a float, a number as text.

    Args:
        name: What messages call it.
        value: As YAML, JSON or Python gave it.
        kinds: The types, of :func:`kinds_of`. Where one is neither plain nor an ``Enum``, anything is taken.

    Raises:
        ConfigError: If it can be none of them.
    """
    enums = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum)]
    if not set(kinds) - set(enums) <= _PLAIN:
        return value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if type(value) in kinds or (enums and isinstance(value, (str, *enums))):
        return value
    if is_number and int in kinds and float(value).is_integer():
        return int(value)
    if is_number and float in kinds:
        return float(value)
    if is_number and str in kinds:
        return str(value)
    wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds if kind not in enums)
    raise ConfigError(f"{name} must be {wanted}, got {value!r}")


def kinds_of(hint: Any) -> list[Any]:
    """The classes that a field's annotation names; what is no class stays as it is."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return [kind for part in typing.get_args(hint) for kind in kinds_of(part)]
    return [origin or hint]


def as_mapping(config: Any, only_given: bool = False) -> Section:
    """A configuration as plain values, from which :func:`build` makes it again.

    Args:
        config: The dataclass.
        only_given: Leave out fields that its caller has not given.
    """
    if hasattr(config, "to_mapping"):
        mapping: Section = config.to_mapping(only_given)
        return mapping
    given = getattr(config, "_given", None) if only_given else None
    return {
        item.name: as_mapping(value) if _is_instance(value) else value
        for item in fields(config)
        if item.init and (given is None or item.name in given)
        for value in (getattr(config, item.name),)
    }


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> Section:
    """Fields over fields; of nested sections each field by itself, and an empty one (``null``) changes nothing."""
    result = dict(below)
    for key, value in above.items():
        known = result.get(key)
        both = isinstance(known, Mapping) and (value is None or isinstance(value, Mapping))
        result[key] = laid_over(known or {}, value or {}) if both else value
    return result


def _is_instance(value: Any) -> bool:
    """Whether it is a dataclass's instance, and not the class."""
    return is_dataclass(value) and not isinstance(value, type)


def name_differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Where two nested settings differ, one phrase each."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            difference
            for key in sorted(set(old) | set(new))
            for difference in name_differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
        ]
    return [] if old == new else [f"{name} was {old!r}, now {new!r}"]
