"""Results of one study that machines shared, put together."""

from __future__ import annotations

import json
from typing import Any

from ost_hf.errors import ConfigError

Record = dict[str, Any]

# Where these differ it was not the same study.
_SAME = ("study", "methods", "settings", "reference", "everything", "oracle", "truth")
_WHICH = ("setting", "method", "keep_ratio", "protocol", "seed")
_WHICH_DATAMODELLING = ("setting", "method", "column", "seed")


def merged(parts: dict[str, Record]) -> Record:
    """One table's worth of results from several.

    Args:
        parts: What ``ost-hf study`` wrote to ``results.json``, by the file's path.

    Raises:
        ConfigError: If the files are of different studies, or two hold the same result.
    """
    (first_path, first), *others = parts.items()
    for path, part in others:
        differing = [name for name in _SAME if part.get(name) != first.get(name)]
        if differing:
            raise ConfigError(
                f"{path} and {first_path} are of different studies ({', '.join(differing)} differs): "
                "run both from one YAML, with other --seeds, --settings or --methods"
            )
    return {
        **first,
        "commands": sorted({command for part in parts.values() for command in part["commands"]}),
        "commits": sorted({commit for part in parts.values() for commit in part["commits"]}),
        "machines": _distinct([machine for part in parts.values() for machine in part["machines"]]),
        "results": _joined(parts, "results", _WHICH),
        "datamodelling": _joined(parts, "datamodelling", _WHICH_DATAMODELLING),
    }


def _distinct(records: list[Record]) -> list[Record]:
    return [json.loads(text) for text in sorted({json.dumps(record, sort_keys=True) for record in records})]


def _joined(parts: dict[str, Record], name: str, keys: tuple[str, ...]) -> list[Record]:
    held: dict[tuple[Any, ...], str] = {}
    joined = []
    for path, part in parts.items():
        for record in part[name]:
            which = tuple(record[key] for key in keys)
            if which in held:
                what = ", ".join(f"{key} {value}" for key, value in zip(keys, which, strict=True))
                raise ConfigError(f"{path} and {held[which]} both hold {what}: leave one of the files out")
            held[which] = path
            joined.append(record)
    return sorted(joined, key=lambda record: record["seed"])
