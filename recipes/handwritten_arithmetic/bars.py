"""What the studies were meant to show, held against what they did.

    python recipes/handwritten_arithmetic/bars.py docs/results > docs/results/bars.md

Reads `gate`, `confirmation` and `gate_auto` (the gate on seeds that nothing was chosen by), `robustness`, `imbalance`,
`copies`, `transfer`, `aim`, `aim_5`, `aim_text`, `aim_text_5`, `subtle` and `calibration.json` in the folder; of one
that is not there it says so. Each of the strategies `thorough` and `auto` is held against the bars of every study that
it ran in. A bar is met by its mean; but what is said of other methods above a strategy, and of a loss without noise, by
the upper end of the 95 % interval over seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from calibration import false_discoveries

from ost_hf.study.source import commits_of
from ost_hf.study.statistics import Interval, mean_interval, mean_recovered, paired_difference, recovered
from ost_hf.study.table import called_wrongly, percent, points, scores_by_method

Bar = tuple[str, str, str]  # what, measured, verdict
Study = dict[str, Any]
Scores = dict[int, float]

# What the bars are of: the two strategies with a second look.
OURS = ("thorough", "auto")
# What really chooses: `untrained`, `everything` and the oracle do not, `one_step` and `paper` are ours.
BASELINES = ("random", "low_loss", "length", "ifd", "rds", "less")
NO_CHOICE = ("untrained", "everything", "oracle")
MET, MISSED = "met", "**missed**"


def main() -> None:
    """Prints the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the studies' results are")
    folder = parser.parse_args().folder
    command = f"python recipes/handwritten_arithmetic/bars.py {folder}"
    print(f"# Bars of the studies on handwritten arithmetic\n\nMade by `{command}`.\n")
    print("| bar | measured | |\n|---|---|---|")
    commits: dict[str, list[str]] = {}
    for name, bars in BARS.items():
        file = folder / name / "results.json"
        if not file.exists():
            print_bar((name, "has not run", ""))
            continue
        study = json.loads(file.read_text())
        for bar in of_strategies(study, name, bars):
            print_bar(bar)
        for mine in OURS:
            known = commits_of(result for result in study["results"] if result["method"] == mine)
            if known:
                commits.setdefault(mine, []).append(f"{name}: {', '.join(known)}")
    file = folder / "calibration.json"
    for bar in calibration(json.loads(file.read_text())) if file.exists() else [("calibration", "has not run", "")]:
        print_bar(bar)
    for mine, of_studies in commits.items():
        print(f"\n`{mine}` is that of {'; '.join(of_studies)}.")


def print_bar(bar: Bar) -> None:
    """A line of the table."""
    print(f"| {' | '.join(bar)} |")


def of_strategies(study: Study, title: str, bars: Callable[[Study, str, str], Iterator[Bar]]) -> Iterator[Bar]:
    """A study's bars of each strategy that it has results of, and what the two are to each other."""
    lacking = {mine: [name for name in ran(study) if not arms(study, name, mine)] for mine in OURS}
    there = [mine for mine in OURS if len(lacking[mine]) < len(ran(study))]
    if not there:
        yield title, f"neither {' nor '.join(OURS)} has run", ""
    for mine in there:
        if lacking[mine]:
            yield f"{title}, `{mine}`", f"has not run in {', '.join(lacking[mine])}", ""
        else:
            yield from bars(study, title, mine)
    if bars is gate and not any(lacking.values()):
        yield loss_of_auto(study, title)


def gate(study: Study, title: str, mine: str) -> Iterator[Bar]:
    """Ten points over random and everything, no baseline above, the share of the gap, false discoveries."""
    by_setting = {name: of_setting(study, name) for name in ran(study)}
    baselines = [method for method in BASELINES if all(method in scores for scores in by_setting.values())]
    for name, scores in by_setting.items():
        everything, oracle = scores["everything"], scores["oracle"]
        over_random, over_everything = difference(scores[mine], scores["random"]), difference(scores[mine], everything)
        room = difference(oracle, everything)
        seeds = f"{title}, {name}, `{mine}`, {over_random.count} seeds"
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
        text, most = closest({other: difference(scores[other], scores[mine]) for other in baselines})
        yield f"{seeds}: no baseline above it by more than 3 (upper end)", text, verdict(most <= 0.03)
        share = recovered(scores[mine], everything, oracle)
        assert share is not None
        yield f"{seeds}: 55 % of the way to the oracle", percent(share), verdict(share.mean >= 0.55)
    over_settings = {method: mean_over(by_setting, method) for method in (mine, *baselines)}
    seeds_of_all = set.intersection(*map(set, over_settings.values()))
    means = {
        method: sum(scores[seed] for seed in seeds_of_all) / len(seeds_of_all)
        for method, scores in over_settings.items()
    }
    second = max(baselines, key=lambda other: means[other])
    text = f"{means[mine]:.1%}, {second} {means[second]:.1%}"
    yield f"{title}, mean of settings, `{mine}`: the best", text, verdict(means[mine] > means[second])
    share = mean_recovered([(s[mine], s["everything"], s["oracle"]) for s in by_setting.values()])
    assert share is not None
    an_aim = f"{title}, mean of settings, `{mine}`: 75 % of the way to the oracle (an aim)"
    yield an_aim, percent(share), verdict(share.mean >= 0.75)
    for name in by_setting:
        rate = mean_interval(called_wrongly(arms(study, name, mine), study["truth"]))
        what = f"{title}, {name}, `{mine}`: called corrupted wrongly at most 7 %"
        yield what, percent(rate), verdict(rate.mean <= 0.07)


def loss_of_auto(study: Study, title: str) -> Bar:
    """What the cheaper strategy loses."""
    by_setting = {name: of_setting(study, name) for name in ran(study)}
    found = difference(mean_over(by_setting, "thorough"), mean_over(by_setting, "auto"))
    what = f"{title}, mean: thorough - auto at most 1 point, upper bound at most 1.5"
    return what, f"{points(found)}, {found.count} seeds", verdict(found.mean <= 0.01 and upper(found) <= 0.015)


def robustness(study: Study, title: str, mine: str) -> Iterator[Bar]:
    """Nothing significant lost without noise."""
    scores = of_setting(study, "noise_0")
    found = difference(scores[mine], scores["random"])
    text = f"{points(found)}, {found.count} seeds"
    if found.high is None:
        raise SystemExit("robustness has one seed: nothing can be called significant")
    yield f"{title}, no noise, `{mine}`: nothing significant lost against random", text, verdict(upper(found) >= 0)


def imbalance(study: Study, title: str, mine: str) -> Iterator[Bar]:
    """Every skill kept, and none below random's."""
    chosen, random = (arms(study, "imbalance", method) for method in (mine, "random"))
    for group in sorted({group for result in chosen + random for group in result["by_group"]}):
        kept = mean_interval([result["kept_share"]["operation"][group] for result in chosen])
        found = difference(*({r["seed"]: r["by_group"][group] for r in results} for results in (chosen, random)))
        text = f"{kept.mean:.0%} kept; {points(found)}, {found.count} seeds"
        met = verdict(found.mean >= 0 and kept.mean > 0)
        yield f"{title}, {group}, `{mine}`: kept, and not below random", text, met


def copies(study: Study, title: str, mine: str) -> Iterator[Bar]:
    """At most one in ten extra copies."""
    for setting in ran(study):
        kept = mean_interval([result["extra_copies_kept"] for result in arms(study, setting, mine)])
        what = f"{title}, {setting}, `{mine}`: at most one in ten extra copies kept"
        yield what, percent(kept), verdict(kept.mean <= 0.1)


def transfer(study: Study, title: str, mine: str) -> Iterator[Bar]:
    """The gain over random with an unlike target over that with a like one."""
    gains = {}
    for setting in ("like", "unlike"):
        scores = of_setting(study, setting)
        gains[setting] = difference(scores[mine], scores["random"])
    like, unlike = gains["like"].mean, gains["unlike"].mean
    share = f"{unlike / like:.0%}: " if like > 0 else "no gain: "
    text = f"{share}{points(gains['unlike'])} against {points(gains['like'])}"
    met = like > 0 and unlike >= 2 / 3 * like
    yield f"{title}, `{mine}`: two thirds of the gain over random with an unlike target", text, verdict(met)


def aim(study: Study, title: str, mine: str, few: bool = False) -> Iterator[Bar]:
    """No other method far above, most of the way from random to the oracle, and most of the oracle's rows kept.

    Of a twentieth (`few`), less is asked: it is less than the target's rows, and everything is far more.
    """
    by_setting = {name: of_setting(study, name) for name in ran(study)}
    for name, scores in by_setting.items():
        others = [method for method in scores if method not in (*NO_CHOICE, *OURS)]
        text, most = closest({other: difference(scores[other], scores[mine]) for other in others})
        seeds = f"{title}, {name}, `{mine}`, {len(scores[mine])} seeds"
        yield f"{seeds}: no other method above it by more than 2 (upper end)", text, verdict(most <= 0.02)
        if not few:
            kept = mean_interval(kept_of_oracles(study, name, mine))
            yield f"{seeds}: keeps 85 % of what the oracle would", percent(kept), verdict(kept.mean >= 0.85)
    mean = f"{title}, mean of {len(by_setting)} settings, `{mine}`"
    share = mean_recovered([(scores[mine], scores["random"], scores["oracle"]) for scores in by_setting.values()])
    if share is None:
        yield f"{mean}: 60 % of the way from random to the oracle", "a setting has no way to go", "no room"
    else:
        met = verdict(share.mean >= 0.6)
        yield f"{mean}: 60 % of the way from random to the oracle", percent(share), met
    if not few:
        over = difference(mean_over(by_setting, mine), mean_over(by_setting, "everything"))
        yield f"{mean}: over everything by 3 points", points(over), verdict(over.mean >= 0.03)


def subtle(study: Study, title: str, mine: str) -> Iterator[Bar]:
    """As many wrong rows dropped as by the better of two single numbers, less three points."""
    for name in ran(study):
        dropped = {method: wrong_dropped(study, name, method) for method in (mine, "one_step", "low_loss")}
        means = {method: mean_interval(list(shares.values())).mean for method, shares in dropped.items()}
        best = max(("one_step", "low_loss"), key=lambda method: means[method])
        found = difference(dropped[mine], dropped[best])
        text = f"{percent(mean_interval(list(dropped[mine].values())))}, against {best} {points(found)}"
        seeds = f"{title}, {name}, `{mine}`, {found.count} seeds"
        yield f"{seeds}: wrong rows dropped, at most 3 points fewer", text, verdict(found.mean >= -0.03)


def wrong_dropped(study: Study, setting: str, method: str) -> Scores:
    """The share of wrong rows that a method does not keep, the mean over ways of being wrong, by seed."""
    found = {}
    for result in arms(study, setting, method):
        kept = [share for kind, share in result["kept_by"].items() if kind != "clean"]
        found[result["seed"]] = 1 - sum(kept) / len(kept)
    return found


def kept_of_oracles(study: Study, setting: str, mine: str) -> list[float]:
    """Of the right rows that an oracle with the same quota would keep, how many a method keeps: a share by seed.

    The study's oracle has no quota: it keeps all right rows.
    """
    right = {result["seed"]: result["rows_kept"] for result in arms(study, setting, "oracle")}
    return [
        result["clean_share"] * result["rows_kept"] / min(result["rows_kept"], right[result["seed"]])
        for result in arms(study, setting, mine)
        if result["seed"] in right
    ]


def calibration(report: Study) -> Iterator[Bar]:
    """False discoveries of "hurts the anchors"."""
    for utility in dict.fromkeys(result["utility"] for result in report["results"]):
        wrong = false_discoveries([result for result in report["results"] if result["utility"] == utility])
        rate = mean_interval(wrong)
        yield f"called hurting wrongly, {utility}: at most 7 %", percent(rate), verdict(rate.mean <= 0.07)


BARS: dict[str, Callable[[Study, str, str], Iterator[Bar]]] = {
    "gate": gate,
    "confirmation": gate,
    "gate_auto": gate,
    "robustness": robustness,
    "imbalance": imbalance,
    "copies": copies,
    "transfer": transfer,
    "aim": aim,
    "aim_5": partial(aim, few=True),
    "aim_text": aim,
    "aim_text_5": partial(aim, few=True),
    "subtle": subtle,
}


def ran(study: Study) -> list[str]:
    """The settings that there are results of."""
    there = {result["setting"] for result in study["results"] if result["protocol"] is not None}
    return [name for name in study["settings"] if name in there]


def arms(study: Study, setting: str, method: str) -> list[Study]:
    """A method's results of a setting; not those of a model that was not trained."""
    mine = (r for r in study["results"] if r["setting"] == setting and r["method"] == method)
    return [result for result in mine if result["protocol"] is not None]


def of_setting(study: Study, setting: str) -> dict[str, Scores]:
    """Exact match by method and seed."""
    return scores_by_method(r for r in study["results"] if r["setting"] == setting and r["protocol"] is not None)


def mean_over(by_setting: dict[str, dict[str, Scores]], method: str) -> Scores:
    """The mean over settings of each seed that all of them have."""
    scores = [of_method[method] for of_method in by_setting.values()]
    return {seed: sum(each[seed] for each in scores) / len(scores) for seed in set.intersection(*map(set, scores))}


def difference(first: Scores, second: Scores) -> Interval:
    """Paired by seed."""
    found = paired_difference(first, second)
    assert found is not None
    return found


def closest(above: dict[str, Interval]) -> tuple[str, float]:
    """The method that may be furthest above: its name and by how much it is, and the upper end of that."""
    worst = max(above, key=lambda other: upper(above[other]))
    return f"{worst} {points(above[worst])}", upper(above[worst])


def upper(interval: Interval) -> float:
    """The upper end; without one, nothing is bounded."""
    return float("inf") if interval.high is None else interval.high


def verdict(met: bool) -> str:
    """In a word."""
    return MET if met else MISSED


if __name__ == "__main__":
    main()
