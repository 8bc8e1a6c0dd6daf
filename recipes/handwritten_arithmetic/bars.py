"""What the studies were meant to show, held against what they did.

    python recipes/handwritten_arithmetic/bars.py docs/results > docs/results/bars.md

Reads `gate`, `confirmation` (the gate on seeds that nothing was chosen by), `robustness`, `imbalance`, `copies`,
`transfer` and `calibration.json` in the folder; of one that is not there it says so. A bar is met by its mean; but what
is said of baselines above `auto`, and of a loss without noise, by the upper end of the 95 % interval over seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calibration import false_discoveries

from ost_hf.study.source import commits_of
from ost_hf.study.statistics import Interval, mean_interval, mean_recovered, paired_difference
from ost_hf.study.table import called_wrongly, gap_recovered, percent, points, scores_by_method

Bar = tuple[str, str, str]  # what, measured, verdict
Study = dict[str, Any]
Scores = dict[int, float]

# What really chooses: `untrained`, `everything` and the oracle do not, `one_step` and `paper` are ours.
BASELINES = ("random", "low_loss", "length", "ifd", "rds", "less")
MET, MISSED = "met", "**missed**"


def main() -> None:
    """Prints the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the studies' results are")
    folder = parser.parse_args().folder
    command = f"python recipes/handwritten_arithmetic/bars.py {folder}"
    print(f"# Bars of the studies on handwritten arithmetic\n\nMade by `{command}`.\n")
    print("| bar | measured | |\n|---|---|---|")
    commits: dict[str, str] = {}
    studies = {
        "gate": gate,
        "confirmation": gate,
        "robustness": robustness,
        "imbalance": imbalance,
        "copies": copies,
        "transfer": transfer,
    }
    for name, bars in studies.items():
        file = folder / name / "results.json"
        study = json.loads(file.read_text()) if file.exists() else None
        found = list(bars(study, name)) if study is not None else [(name, "has not run", "")]
        for bar in found:
            print(f"| {' | '.join(bar)} |")
        if study is not None:
            by_auto = [result for result in study["results"] if result["method"] == "auto"]
            commits[name] = ", ".join(commits_of(by_auto))
    file = folder / "calibration.json"
    found = list(calibration(json.loads(file.read_text()))) if file.exists() else [("calibration", "has not run", "")]
    for bar in found:
        print(f"| {' | '.join(bar)} |")
    print(f"\n`auto` is that of {'; '.join(f'{name}: {commit}' for name, commit in commits.items())}.")


def gate(study: Study, title: str) -> Iterator[Bar]:
    """Ten points over random and everything, no baseline above, the share of the gap, false discoveries."""
    by_setting = {name: of_setting(study, name) for name in study["settings"]}
    baselines = [method for method in BASELINES if all(method in scores for scores in by_setting.values())]
    for name, scores in by_setting.items():
        auto, everything = scores["auto"], scores["everything"]
        over_random, over_everything = difference(auto, scores["random"]), difference(auto, everything)
        room = difference(scores["oracle"], everything)
        seeds = f"{title}, {name}, {over_random.count} seeds"
        yield f"{seeds}: over random by 10 points", points(over_random), verdict(over_random.mean >= 0.1)
        if room.mean < 0.1:
            yield f"{seeds}: over everything by 10 points", f"the oracle is {points(room)} above it", "no room"
        else:
            met = verdict(over_everything.mean >= 0.1)
            yield (
                f"{seeds}: over everything by 10 points",
                f"{points(over_everything)}; the oracle {points(room)}",
                met,
            )
        behind = {other: difference(scores[other], auto) for other in baselines}
        worst = max(behind, key=lambda other: upper(behind[other]))
        text = f"{worst} {points(behind[worst])}"
        yield f"{seeds}: no baseline above it by more than 3 (upper end)", text, verdict(upper(behind[worst]) <= 0.03)
        share = gap_recovered(study, scores)
        assert share is not None
        yield f"{seeds}: 55 % of the way to the oracle", percent(share), verdict(share.mean >= 0.55)
    seeds_of_all = set.intersection(
        *(set(scores[method]) for scores in by_setting.values() for method in ("auto", *baselines))
    )
    means = {
        method: sum(by_setting[name][method][seed] for name in by_setting for seed in seeds_of_all)
        / (len(by_setting) * len(seeds_of_all))
        for method in ("auto", *baselines)
    }
    second = max(baselines, key=lambda other: means[other])
    text = f"{means['auto']:.1%}, {second} {means[second]:.1%}"
    yield f"{title}, mean of settings: the best", text, verdict(means["auto"] > means[second])
    share = mean_recovered([(s["auto"], s["everything"], s["oracle"]) for s in by_setting.values()])
    assert share is not None
    aim = f"{title}, mean of settings: 75 % of the way to the oracle (an aim)"
    yield aim, percent(share), verdict(share.mean >= 0.75)
    for name in by_setting:
        mine = [r for r in study["results"] if r["setting"] == name and r["method"] == "auto"]
        rate = mean_interval(called_wrongly(mine, study["truth"]))
        yield f"{title}, {name}: called corrupted wrongly at most 7 %", percent(rate), verdict(rate.mean <= 0.07)


def robustness(study: Study, title: str) -> Iterator[Bar]:
    """Nothing significant lost without noise."""
    scores = of_setting(study, "noise_0")
    found = difference(scores["auto"], scores["random"])
    text = f"{points(found)}, {found.count} seeds"
    if found.high is None:
        raise SystemExit("robustness has one seed: nothing can be called significant")
    yield f"{title}, no noise: nothing significant lost against random", text, verdict(upper(found) >= 0)


def imbalance(study: Study, title: str) -> Iterator[Bar]:
    """Every skill kept, and none below random's."""
    mine = [r for r in study["results"] if r["setting"] == "imbalance"]
    for group in sorted({group for result in mine for group in result["by_group"]}):
        auto, random = (
            {r["seed"]: r["by_group"][group] for r in mine if r["method"] == method} for method in ("auto", "random")
        )
        kept = mean_interval([r["kept_share"]["operation"][group] for r in mine if r["method"] == "auto"])
        found = difference(auto, random)
        text = f"{kept.mean:.0%} kept; {points(found)}, {found.count} seeds"
        yield f"{title}, {group}: kept, and not below random", text, verdict(found.mean >= 0 and kept.mean > 0)


def copies(study: Study, title: str) -> Iterator[Bar]:
    """At most one in ten extra copies."""
    for setting in study["settings"]:
        mine = [r for r in study["results"] if r["setting"] == setting and r["method"] == "auto"]
        kept = mean_interval([r["extra_copies_kept"] for r in mine])
        yield f"{title}, {setting}: at most one in ten extra copies kept", percent(kept), verdict(kept.mean <= 0.1)


def transfer(study: Study, title: str) -> Iterator[Bar]:
    """The gain over random with an unlike target over that with a like one."""
    gains = {}
    for setting in ("like", "unlike"):
        scores = of_setting(study, setting)
        gains[setting] = difference(scores["auto"], scores["random"])
    like, unlike = gains["like"].mean, gains["unlike"].mean
    share = f"{unlike / like:.0%}: " if like > 0 else "no gain: "
    text = f"{share}{points(gains['unlike'])} against {points(gains['like'])}"
    met = like > 0 and unlike >= 2 / 3 * like
    yield f"{title}: two thirds of the gain over random with an unlike target", text, verdict(met)


def calibration(report: Study) -> Iterator[Bar]:
    """False discoveries of "hurts the anchors"."""
    for utility in dict.fromkeys(result["utility"] for result in report["results"]):
        wrong = false_discoveries([result for result in report["results"] if result["utility"] == utility])
        rate = mean_interval(wrong)
        yield f"called hurting wrongly, {utility}: at most 7 %", percent(rate), verdict(rate.mean <= 0.07)


def of_setting(study: Study, setting: str) -> dict[str, Scores]:
    """Exact match by method and seed."""
    return scores_by_method(r for r in study["results"] if r["setting"] == setting and r["protocol"] is not None)


def difference(first: Scores, second: Scores) -> Interval:
    """Paired by seed."""
    found = paired_difference(first, second)
    assert found is not None
    return found


def upper(interval: Interval) -> float:
    """The upper end; without one, nothing is bounded."""
    return float("inf") if interval.high is None else interval.high


def verdict(met: bool) -> str:
    """In a word."""
    return MET if met else MISSED


if __name__ == "__main__":
    main()
