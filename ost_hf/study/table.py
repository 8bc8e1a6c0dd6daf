"""A study's results as Markdown: one table for each setting, keep ratio and protocol, and one over all settings."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ost_hf.study.cost import SELECTING, TRAINING, known_of_some, seconds_of
from ost_hf.study.source import not_to_the_letter, source
from ost_hf.study.statistics import Interval, mean_interval, mean_recovered, paired_difference, recovered

Record = dict[str, Any]
Results = list[Record]
Scores = dict[int, float]  # by seed


def as_markdown(study: Record) -> str:
    """The tables, and under them what they were made with.

    Args:
        study: What ``ost-hf study`` writes to ``results.json``.
    """
    results: Results = study["results"]
    trained = [result for result in results if result["protocol"] is not None]
    parts = []
    for protocol in sorted({result["protocol"] for result in trained}):
        ratios = sorted({r["keep_ratio"] for r in trained if r["protocol"] == protocol and r["keep_ratio"] is not None})
        for ratio in ratios or [None]:
            chosen = [r for r in trained if r["protocol"] == protocol and r["keep_ratio"] in (ratio, None)]
            title = f"keep {ratio:.0%}, Protocol {protocol}" if ratio is not None else f"Protocol {protocol}"
            settings = [name for name in study["settings"] if any(r["setting"] == name for r in chosen)]
            for setting in settings:
                parts += [f"### {setting}: {title}", "", *_setting_table(study, chosen, results, setting), ""]
            if len(settings) > 1:
                parts += [f"### All settings: {title}", "", *_overall_table(study, chosen, settings), ""]
    if study.get("datamodelling"):
        parts += ["### Linear datamodelling score", "", *_datamodelling_table(study["datamodelling"]), ""]
    return "\n".join([*parts, *not_to_the_letter(study["study"]), source(study), ""])


def _setting_table(study: Record, chosen: Results, results: Results, setting: str) -> list[str]:
    here = [result for result in chosen if result["setting"] == setting]
    scores = scores_by_method(here)
    reference = scores.get(study["reference"], {})
    lines = [
        f"| method | exact match | {study['reference']} over it | kept | clean of kept | AUC of utility | steps | "
        "select (s) | train (s) | both (s) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    untrained = scores_by_method(r for r in results if r["setting"] == setting and r["protocol"] is None)
    lines += [f"| {name} | {_mean(values).mean:.1%} | | | | | | | | |" for name, values in untrained.items()]
    for method in (name for name in study["methods"] if name in scores):
        mine = [result for result in here if result["method"] == method]
        difference = None if method == study["reference"] else paired_difference(reference, scores[method])
        name = f"**{method}**" if method == study["reference"] else method
        if len(scores[method]) < max(map(len, scores.values())):
            name += f" ({len(scores[method])} seed{'s' if len(scores[method]) > 1 else ''})"
        seconds = [_seconds(mine, stages) for stages in (SELECTING, TRAINING, SELECTING + TRAINING)]
        kept, steps = _average(map(_kept_share, mine)), _average(result.get("steps") for result in mine)
        clean, auc = _average(result.get("clean_share") for result in mine), _auc(mine)
        lines.append(
            f"| {name} | {percent(_mean(scores[method]))} | {points(difference)} | {_cell(kept, '.0%')} | "
            f"{_cell(clean, '.1%')} | {_cell(auc, '.3f')} | {_cell(steps, '.0f')} | "
            f"{' | '.join(_cell(value, '.0f') for value in seconds)} |"
        )
    for (known, count), methods in known_of_some(here).items():
        which = f"{known} of {count} seeds for {', '.join(methods)}"
        lines += ["", f"Seconds of selection are of {which}; what an interrupted scoring cost is not known."]
    lines += _share_of_the_way(study, scores)
    lines += _group_table(study, here, [r for r in results if r["setting"] == setting and r["protocol"] is None])
    lines += _kept_shares(study, here)
    lines += _copies_kept(study, here)
    lines += _leans([r for r in here if r["method"] == study["reference"]])
    lines += _aucs_of_second_look(study, here)
    called = _called_toxic([r for r in here if r["method"] == study["reference"]], study.get("truth"))
    return [*lines, "", called] if called else lines


def _share_of_the_way(study: Record, scores: dict[str, Scores]) -> list[str]:
    """How much of what the oracle gains the reference gains; without a certain gain there is no share of it."""
    share = gap_recovered(study, scores)
    if share is None:
        return []
    reference, below, above = (study[role] for role in ("reference", "everything", "oracle"))
    if share.low is not None and math.isinf(share.low):
        room = points(paired_difference(scores[above], scores[below]))
        return ["", f"{above} is {room} points above {below}: too uncertain to tell {reference}'s share of it."]
    return ["", f"Of the way from {below} to {above}, {reference} goes {percent(share)}."]


def _group_table(study: Record, here: Results, untrained: Results) -> list[str]:
    """Exact match by group of test rows, and in points how far the reference is above it."""
    groups = sorted({group for result in here for group in result.get("by_group") or {}})
    if len(groups) < 2:
        return []
    reference = {group: _scores_of_group(here, study["reference"], group) for group in groups}
    lines = [
        f"| exact match by group, {study['reference']} over it | {' | '.join(groups)} |",
        "|---|" + "---|" * len(groups),
    ]
    for method in study["methods"]:
        cells = []
        for group in groups:
            scores = _scores_of_group([*here, *untrained], method, group)
            if not scores:
                break
            difference = None if method == study["reference"] else paired_difference(reference[group], scores)
            cells.append(f"{_mean(scores).mean:.1%} {points(difference)}".strip())
        if len(cells) == len(groups):
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return ["", *lines]


def _scores_of_group(results: Results, method: str, group: str) -> Scores:
    mine = (result for result in results if result["method"] == method and group in (result.get("by_group") or {}))
    return {result["seed"]: result["by_group"][group] for result in mine}


def _copies_kept(study: Record, here: Results) -> list[str]:
    """Of the rows beyond the first of each group of copies, what share the methods keep."""
    parts = []
    for method in study["methods"]:
        shares = [r["extra_copies_kept"] for r in here if r["method"] == method and "extra_copies_kept" in r]
        if shares:
            parts.append(f"{method} {percent(mean_interval(shares))}")
    return ["", f"Extra copies kept (all but one of each group are extra): {', '.join(parts)}."] if parts else []


def _leans(results: Results) -> list[str]:
    """How far the reference's choice leans on its second look."""
    leans = [result["leans"] for result in results if "leans" in result]
    if not leans:
        return []
    pool, kept, same = (
        mean_interval([lean[name] for lean in leans])
        for name in ("pool_as_clean", "kept_as_clean", "kept_by_utility_too")
    )
    return [
        "",
        f"To {results[0]['method']}, {percent(pool)} of the pool looks as clean as the anchors, and {percent(kept)} "
        f"of what it keeps. The highest utilities alone would have kept {percent(same)} of the same rows.",
    ]


def _aucs_of_second_look(study: Record, here: Results) -> list[str]:
    """How well late losses and p-values tell clean rows from others, for the methods that have them."""
    parts = []
    for method in study["methods"]:
        mine = [result for result in here if result["method"] == method]
        late, p = _auc(mine, "late_loss"), _auc(mine, "corrupted_p")
        if late is not None and p is not None:
            parts.append(f"{method} {late:.3f} and {p:.3f}")
    return ["", f"AUC of late losses and of p-values: {'; '.join(parts)}."] if parts else []


def _kept_shares(study: Record, here: Results) -> list[str]:
    """What share of each value's rows the methods keep, for the columns of ``count_by``."""
    lines = []
    for column in sorted({column for result in here for column in result.get("kept_share", {})}):
        for method in study["methods"]:
            shares = [r["kept_share"][column] for r in here if r["method"] == method and "kept_share" in r]
            values = sorted({value for share in shares for value in share})
            means = [f"{value} {_average(share.get(value) for share in shares) or 0:.0%}" for value in values]
            if means:
                lines.append(f"{method} keeps by {column}: {', '.join(means)}.")
    return ["", "  \n".join(lines)] if lines else []


def _called_toxic(results: Results, truth: Record | None) -> str:
    """How often the reference's verdict "toxic" is wrong, and what it finds of each kind of row."""
    counts = [result["verdicts"] for result in results if result.get("verdicts")]
    if truth is None or not counts:
        return ""
    power: dict[str, list[float]] = {}
    for found in counts:
        for kind in set(found) - {str(truth["clean"])}:
            # A dropped copy is asked nothing and has no verdict.
            asked = sum(count for verdict, count in found[kind].items() if verdict != "none")
            if asked:
                power.setdefault(kind, []).append(found[kind].get("toxic", 0) / asked)
    wrong = called_wrongly(results, truth)
    shares = ", ".join(f"{_average(values):.0%} of {kind}" for kind, values in sorted(power.items()))
    found_of = f"; found: {shares}" if shares else ""  # a pool of clean rows alone has nothing to be found
    return f"Called toxic by {results[0]['method']}: wrong in {percent(mean_interval(wrong))}{found_of}."


def called_wrongly(results: Results, truth: Record) -> list[float]:
    """Of the rows that each result calls toxic, the share that is clean.

    Nothing called is nothing called wrongly: Benjamini and Hochberg's definition.
    """
    shares = []
    for found in (result["verdicts"] for result in results if result.get("verdicts")):
        toxic = {kind: verdicts.get("toxic", 0) for kind, verdicts in found.items()}
        shares.append(toxic.get(str(truth["clean"]), 0) / max(1, sum(toxic.values())))
    return shares


def _overall_table(study: Record, chosen: Results, settings: list[str]) -> list[str]:
    """Means over settings: of each seed first, so that the interval is over seeds."""
    by_setting = {name: scores_by_method(r for r in chosen if r["setting"] == name) for name in settings}
    overall: dict[str, Scores] = {}
    for method in study["methods"]:
        scores = [by_setting[name].get(method, {}) for name in settings]
        seeds = set.intersection(*(set(values) for values in scores))
        if seeds:
            overall[method] = {seed: sum(v[seed] for v in scores) / len(scores) for seed in seeds}
    if not overall:
        return ["No method has a seed that all settings have."]
    reference = overall.get(study["reference"], {})
    lines = [f"| method | mean of settings | {study['reference']} over it |", "|---|---|---|"]
    for method, values in overall.items():
        difference = None if method == study["reference"] else paired_difference(reference, values)
        lines.append(f"| {method} | {percent(_mean(values))} | {points(difference)} |")
    common = min(map(len, overall.values()))
    if any(len(values) > common for scores in by_setting.values() for values in scores.values()):
        lines += ["", f"Over the {common} seeds that all settings have."]
    return [*lines, *_overall_share(study, {name: by_setting[name] for name in settings})]


def _overall_share(study: Record, by_setting: dict[str, dict[str, Scores]]) -> list[str]:
    """The mean share of the gap over the settings that have one, and which those are."""
    roles = [study[role] for role in ("reference", "everything", "oracle")]
    shares = {
        name: _roles(study, scores)
        for name, scores in by_setting.items()
        if all(role in scores for role in roles) and gap_recovered(study, scores) is not None
    }
    share = mean_recovered(list(shares.values())) if shares else None
    if share is None:
        return []
    which = "settings" if len(shares) == len(by_setting) else f"{', '.join(shares)} (no room in the others)"
    return ["", f"Of the way to {study['oracle']}, mean of {which} over {share.count} common seeds: {percent(share)}."]


def _roles(study: Record, scores: dict[str, Scores]) -> tuple[Scores, Scores, Scores]:
    return scores[study["reference"]], scores[study["everything"]], scores[study["oracle"]]


def _datamodelling_table(records: Results) -> list[str]:
    """Correlations of summed scores with how low the anchors' loss is after real fine-tuning."""
    settings = list(dict.fromkeys(record["setting"] for record in records))
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for record in records:
        by_setting = found.setdefault((record["method"], record["column"]), {})
        by_setting.setdefault(record["setting"], []).append(record["score"])
    lines = [f"| scores | {' | '.join(settings)} |", "|---|" + "---|" * len(settings)]
    for (method, column), by_setting in found.items():
        name = method if column == "utility" else f"{method} ({column})"
        cells = [_correlation(by_setting.get(setting)) for setting in settings]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    subsets = sorted({record["subsets"] for record in records})
    return [*lines, "", f"Spearman correlation over {', '.join(map(str, subsets))} random subsets, means over seeds."]


def _correlation(values: list[float] | None) -> str:
    if not values:
        return ""
    interval = mean_interval(values)
    ends = "" if interval.low is None else f" [{interval.low:.2f}, {interval.high:.2f}]"
    return f"{interval.mean:.2f}{ends}"


def scores_by_method(results: Iterable[Record]) -> dict[str, Scores]:
    """Exact match by method and seed."""
    found: dict[str, Scores] = {}
    for result in results:
        found.setdefault(result["method"], {})[result["seed"]] = result["score"]
    return found


def gap_recovered(study: Record, scores: dict[str, Scores]) -> Interval | None:
    """How far the reference goes from training on everything to the oracle, where the study has both."""
    reference, below, above = (scores.get(study[role]) for role in ("reference", "everything", "oracle"))
    return None if reference is None or below is None or above is None else recovered(reference, below, above)


def _mean(values: Scores) -> Interval:
    return mean_interval(list(values.values()))


def percent(interval: Interval) -> str:
    """A share and its interval."""
    ends = "" if interval.low is None else f" [{100 * interval.low:.1f}, {100 * (interval.high or 0):.1f}]"
    return f"{interval.mean:.1%}{ends}"


def points(interval: Interval | None) -> str:
    """A difference of shares in points, and its interval."""
    if interval is None:
        return ""
    ends = "" if interval.low is None else f" [{100 * interval.low:+.1f}, {100 * (interval.high or 0):+.1f}]"
    return f"{100 * interval.mean:+.1f}{ends}"


def _seconds(results: Results, stages: tuple[str, ...]) -> float | None:
    return _average(seconds_of(result, stages) for result in results)


def _kept_share(result: Record) -> float | None:
    return result["rows_kept"] / result["rows_pool"] if "rows_kept" in result else None


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _auc(results: Results, column: str = "utility") -> float | None:
    return _average((result.get("auc") or {}).get(column) for result in results)


def _average(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
