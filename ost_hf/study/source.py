"""Where a table's figures come from, as the lines under it: command, commits, machines, weights, estimators."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable
from typing import Any

from ost_hf.scoring.config import DEFAULT_SCORER

Record = dict[str, Any]


def not_to_the_letter(given: Record) -> list[str]:
    """Methods of strategy ``paper`` with another estimator than the paper's; older results do not tell of methods."""
    found: dict[tuple[str, str | None], dict[str, None]] = {}
    for method, sections in (given.get("methods") or {}).items():
        for setting in given["settings"].values():
            layers = (sections, setting, given["common"])
            strategy = ChainMap(*layers).get("strategy")
            scoring = [layer.get("scoring") or {} for layer in layers]
            options = ChainMap(*(each.get(DEFAULT_SCORER) or {} for each in scoring))
            estimator, stage = options.get("estimator", "exact"), ChainMap(*scoring).get("second_stage")
            if strategy == "paper" and estimator != "exact" and not sections.get("untrained"):
                found.setdefault((estimator, stage), {})[method] = None
    lines = []
    for (estimator, stage), methods in found.items():
        # The only stage that `paper` lets in steps exactly.
        exact = " but for rows near the cut and a sample" if stage is not None else ""
        lines += [
            f"{', '.join(methods)}: estimator `{estimator}`, first order in place of the simulated step{exact}.",
            "",
        ]
    return lines


def source(study: Record) -> str:
    """Seeds, command, commits, machines, and settings whose models were made more than once."""
    return (
        f"Means and 95 % intervals over seeds; differences in points, paired by seed. "
        f"{_seeds(study)}. {'; '.join(f'`{command}`' for command in study['commands'])} "
        f"at {_commits(study)}; "
        f"{'; '.join(map(_machine, study['machines'])) or 'machine not known'}.{_made_anew(study)}"
    )


def _seeds(study: Record) -> str:
    """All seeds, or where settings differ those of each."""
    settings: dict[tuple[int, ...], list[str]] = {}
    for setting in study["settings"]:
        seeds = sorted({result["seed"] for result in study["results"] if result["setting"] == setting})
        if seeds:
            settings.setdefault(tuple(seeds), []).append(setting)
    listed = {", ".join(map(str, seeds)): names for seeds, names in settings.items()}
    if len(listed) < 2:
        return f"Seeds {''.join(listed)}"
    return "Seeds " + "; ".join(f"{seeds} of {', '.join(names)}" for seeds, names in listed.items())


def commits_of(results: Iterable[Record]) -> list[str]:
    """Of arms, and of their scores, which may be of another day; the version's, where an installed package ran them."""
    found = {known for each in results for known in (each["commit"] or each["version"], each.get("scored_at"))}
    return sorted(name for name in found if name)


def _commits(study: Record) -> str:
    """Those of most methods, and by name the methods of others: one method may be run again, and the others kept."""
    by_method: dict[str, list[Record]] = {}
    for result in study["results"]:
        by_method.setdefault(result["method"], []).append(result)
    methods: dict[tuple[str, ...], list[str]] = {}
    for method in study["methods"]:
        if method in by_method:
            methods.setdefault(tuple(commits_of(by_method[method])), []).append(method)
    first, *others = sorted(methods.items(), key=lambda item: (-len(item[1]), study["reference"] in item[1]))
    return "; ".join([", ".join(first[0]), *(f"{', '.join(names)} at {', '.join(at)}" for at, names in others)])


def _made_anew(study: Record) -> str:
    """Settings whose models had other weights for some of the results, as when a script made them on two machines."""
    found: dict[tuple[str, str], set[str]] = {}
    for result in study["results"]:
        if result.get("weights"):
            key = result["setting"], result["method"]
            found.setdefault(key, set()).add(str(sorted(result["weights"].items())))
    lines = []
    for setting in study["settings"]:
        most = max((len(sets) for (where, _), sets in found.items() if where == setting), default=1)
        if most > 1:
            lines.append(f" Models of {setting} were made anew: {most} sets of weights.")
    return "".join(lines)


def _machine(machine: Record) -> str:
    devices = ", ".join(machine["accelerators"]) or f"{machine['cores']} cores of {_processor(machine)}"
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    return f"one of {machine['workers']} workers on {devices}, Python {machine['python']}, {libraries}"


def _processor(machine: Record) -> str:
    """Its name, and of newer results its model and instruction set."""
    more = [machine[key] for key in ("processor_model", "instructions") if machine.get(key)]
    return f"{machine['processor']} ({', '.join(more)})" if more else machine["processor"]
