"""Results of one study that machines shared, put together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ost_hf.errors import ConfigError, unknown_key
from ost_hf.study.source import commits_of

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
    """Differences are paired by seed: all arms of a setting and seed must have the same data, target and machine.

    Data are compared as far as results tell; ones of before they did are taken at their seed's word.
    """
    holders: dict[tuple[Any, ...], str] = {}
    places: dict[tuple[Any, ...], list[tuple[str, Record]]] = {}
    for path, part in parts.items():
        for record in part["results"] + part["datamodelling"]:
            arm = tuple(record.get(key) for key in ("setting", "seed", "method", "keep_ratio", "protocol", "column"))
            other = holders.setdefault(arm, path)
            if other != path:
                raise ConfigError(
                    f"{path} and {other} both hold setting {arm[0]}, seed {arm[1]}, of {arm[2]}: take the other "
                    f"methods, settings or seeds of one of them first (ost-hf study --results {other} --methods ... "
                    "--output FOLDER; --settings, --seeds)"
                )
        for record in part["results"]:
            # With each of the others: what two of them leave untold may differ between the third and one of them.
            for other, theirs in places.setdefault((record["setting"], record["seed"]), []):
                differing = _differences(record, theirs) if other != path else []
                if differing:
                    raise ConfigError(
                        f"{path} and {other} both hold setting {record['setting']}, seed {record['seed']}, of other "
                        f"{', '.join(differing)}: methods are paired by seed, so run them with the same models on "
                        "machines alike, or take that setting and seed from one alone (ost-hf study --results FILE "
                        "--settings ... --seeds ... --output FOLDER)"
                    )
            places[record["setting"], record["seed"]].append((path, record))


def _differences(one: Record, other: Record) -> list[str]:
    """In what two arms of a setting and seed are not a pair; one that does not tell its machine is no pair of any."""
    found = [] if _alike(one.get("machine"), other.get("machine")) else ["machines"]
    # A method may have a proxy of its own; the target is the setting's. Names on the Hub have no hash here.
    if one.get("weights", {}).get("target") != other.get("weights", {}).get("target"):
        found.append("weights")
    data, others = one.get("data"), other.get("data")
    if data and others and not _alike(data, others):
        found.append("data")
    return found


def _alike(one: Record | None, other: Record | None) -> bool:
    """Whether both are known and the same in all that both tell: results of before tell less of a machine."""
    return one is not None and other is not None and all(one[name] == other[name] for name in one.keys() & other.keys())


def part_of(results: Record, wanted: dict[str, list[Any] | None]) -> Record:
    """The same study's results, of some methods, settings and seeds alone.

    Args:
        results: What ``ost-hf study`` wrote to ``results.json``.
        wanted: What to take by ``method``, ``setting`` and ``seed``; ``None`` for all.

    Raises:
        ConfigError: For a method or a setting that the study has not, or where nothing is left.
    """
    for kind in ("method", "setting"):
        for name in wanted.get(kind) or []:
            if name not in results[f"{kind}s"]:
                raise ConfigError(unknown_key(kind, name, results[f"{kind}s"]))
    asked = {kind: names for kind, names in wanted.items() if names is not None}
    taken = {
        name: [record for record in results[name] if all(record[kind] in names for kind, names in asked.items())]
        for name in ("results", "datamodelling")
    }
    if not taken["results"]:
        words = "; ".join(f"{kind} {', '.join(map(str, names))}" for kind, names in asked.items())
        raise ConfigError(f"there are no results of {words}")
    return {**results, **taken, "commits": commits_of(taken["results"]), "machines": machines_of(taken["results"])}


def machines_of(results: list[Record]) -> list[Record]:
    """Those that ran arms; results of before machines were told have none."""
    return [json.loads(text) for text in sorted({json.dumps(each["machine"]) for each in results if "machine" in each})]
