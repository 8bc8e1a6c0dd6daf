"""Results of one study that machines shared, put together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ost_hf.errors import ConfigError, unknown_key

Record = dict[str, Any]

# Where these differ it was not the same study.
_SAME = ("study", "methods", "settings", "reference", "everything", "oracle", "truth")
_LISTS = ("commands", "commits", "machines", "results", "datamodelling")


def read_results(path: Path) -> Record:
    """A ``results.json``.

    Raises:
        ConfigError: If it is not there, or not a study's.
    """
    if not path.is_file():
        raise ConfigError(f"there is no {path}")
    try:
        results = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no JSON: {error}") from error
    lacking = [name for name in (*_SAME, *_LISTS) if not isinstance(results, dict) or name not in results]
    if lacking:
        raise ConfigError(f"{path} is no results.json of this version's `ost-hf study`: it lacks {', '.join(lacking)}")
    return results


def merged(parts: dict[str, Record]) -> Record:
    """One table's worth of results from several.

    Args:
        parts: What ``ost-hf study`` wrote to ``results.json``, by the file's path.

    Raises:
        ConfigError: If the files are of different studies, or two hold results of one method, setting and seed, or of
            one setting and seed with other models or on other machines.
    """
    (first_path, first), *others = parts.items()
    for path, part in others:
        differing = [name for name in _SAME if part[name] != first[name]]
        if differing:
            raise ConfigError(
                f"{path} and {first_path} are of different studies ({', '.join(differing)} differs): "
                "run both from one YAML, with other --seeds or --settings"
            )
    _check_configurations(parts)
    _check_shares(parts)
    joined = {name: [record for part in parts.values() for record in part[name]] for name in _LISTS}
    return {
        **first,
        "commands": sorted(set(joined["commands"])),
        "commits": sorted(set(joined["commits"])),
        "machines": [json.loads(text) for text in sorted({json.dumps(m) for m in joined["machines"]})],
        "results": sorted(joined["results"], key=lambda record: record["seed"]),
        "datamodelling": sorted(joined["datamodelling"], key=lambda record: record["seed"]),
    }


def _check_configurations(parts: dict[str, Record]) -> None:
    """The YAML may be the same and a default another: then it was another method."""
    seen: dict[tuple[Any, ...], tuple[str, str]] = {}
    for path, part in parts.items():
        for record in part["results"]:
            arm = tuple(record[key] for key in ("setting", "method", "keep_ratio", "protocol"))
            other, configuration = seen.setdefault(arm, (path, record["configuration"]))
            if configuration != record["configuration"]:
                raise ConfigError(
                    f"{arm[1]} of setting {arm[0]} had another configuration in {path} than in {other}, though the "
                    "YAML is the same: run both with the same version of the package"
                )


def _check_shares(parts: dict[str, Record]) -> None:
    """Differences are paired by seed: all arms of a setting and seed must have the same data, models and machine."""
    held: dict[tuple[Any, ...], tuple[str, Record]] = {}
    for path, part in parts.items():
        for which, arms in _by_repetition(part).items():
            other, theirs = held.setdefault(which, (path, arms))
            if other == path:
                continue
            twice = sorted(name for name in arms if name in theirs)
            if twice:
                raise ConfigError(
                    f"{path} and {other} both hold setting {which[0]}, seed {which[1]}, of {', '.join(twice)}: leave "
                    "it out of one with --methods"
                )
            if not _one_place([*arms.values(), *theirs.values()]):
                raise ConfigError(
                    f"{path} and {other} both hold setting {which[0]}, seed {which[1]}, with other weights or of other "
                    "machines: methods are paired, so all of them must come from one"
                )
            held[which] = (path, theirs | arms)


def _by_repetition(part: Record) -> dict[tuple[str, int], dict[str, Record]]:
    """The arms of each setting and seed, by a name."""
    found: dict[tuple[str, int], dict[str, Record]] = {}
    for record in part["results"]:
        name = " ".join(str(record[key]) for key in ("method", "keep_ratio", "protocol") if record[key] is not None)
        found.setdefault((record["setting"], record["seed"]), {})[name] = record
    for record in part["datamodelling"]:
        name = f"datamodelling {record['method']} {record['column']}"
        found.setdefault((record["setting"], record["seed"]), {})[name] = record
    return found


def _one_place(records: list[Record]) -> bool:
    """Whether arms ran with the same models on machines alike; ones that do not say so did not."""
    # Datamodelling scores say neither; they are made beside the arms of their setting and seed.
    arms = [record for record in records if "keep_ratio" in record]
    places = {json.dumps([arm.get("weights"), arm.get("machine")], sort_keys=True) for arm in arms}
    return len(places) == 1 and all(arm.get("weights") and arm.get("machine") for arm in arms)


def of_methods(results: Record, methods: list[str]) -> Record:
    """The same study's results, of some methods alone.

    Raises:
        ConfigError: For a method that the study has not.
    """
    for name in methods:
        if name not in results["methods"]:
            raise ConfigError(unknown_key("method", name, results["methods"]))
    taken = {
        name: [record for record in results[name] if record["method"] in methods]
        for name in ("results", "datamodelling")
    }
    return {**results, **taken}
