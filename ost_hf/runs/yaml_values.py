"""YAML as people mean it: ``no`` is a word and ``1e-3`` a number (YAML 1.2); PyYAML alone reads YAML 1.1."""

from __future__ import annotations

import re
from typing import Any

import yaml

from ost_hf.errors import ConfigError


class _Loader(yaml.SafeLoader):
    pass


_RENEWED = {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:float"}
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag not in _RENEWED]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf|\.nan)$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str) -> Any:
    """Parses ``text``.

    Raises:
        ConfigError: If it is not YAML; ``where`` is named.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {error}") from error


def dump_yaml(value: Any) -> str:
    """Text that :func:`parse_yaml` reads back."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
