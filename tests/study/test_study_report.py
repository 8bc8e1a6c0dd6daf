"""A study's table and plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ost_hf.study.cost import known_of_some
from ost_hf.study.plot import marks, panel_title, plot_cost, styles
from ost_hf.study.table import as_markdown

Record = dict[str, Any]


def result(method: str, seed: int, score: float, scoring: float | None) -> Record:
    seconds = {"score": scoring, "select": 1.0, "train": 2.0, "evaluate": 1.0}
    return {
        "method": method, "setting": "one", "seed": seed, "keep_ratio": 0.5, "protocol": "B", "score": score,
        "seconds": seconds, "commit": "abc",
    }  # fmt: skip


@pytest.fixture
def study() -> Record:
    """One setting, three seeds; of ``auto`` one scoring was interrupted, of ``slow`` all."""
    results = [
        result(method, seed, 0.1 * seed, None if method == "slow" or (method, seed) == ("auto", 3) else 10.0 * seed)
        for method in ("random", "auto", "slow")
        for seed in (1, 2, 3)
    ]
    return {
        "commands": ["ost-hf study"], "commits": ["abc"], "machines": [], "reference": "auto", "truth": None,
        "everything": "everything", "oracle": "oracle", "settings": ["one"], "methods": ["random", "auto", "slow"],
        "results": results, "study": {}, "datamodelling": [],
    }  # fmt: skip


def test_it_is_said_of_how_many_seeds_a_cost_is(study: Record) -> None:
    assert known_of_some(study["results"]) == {(2, 3): ["auto"], (0, 3): ["slow"]}
    table = as_markdown(study)
    assert "| **auto** | 20.0% [-4.8, 44.8] |  |  |  |  |  | 16 | 2 | 18 |" in table
    assert "Seconds of selection are of 2 of 3 seeds for auto; what an interrupted scoring cost is not known." in table
    assert "Seconds of selection are of 0 of 3 seeds for slow" in table
    assert "random;" not in table


def test_what_was_found_is_said_where_there_was_something_to_find(study: Record) -> None:
    study["truth"] = {"column": "kind", "clean": "clean"}
    for entry in study["results"]:
        entry["verdicts"] = {"clean": {"uncertain": 4}}
    assert "Called toxic by auto: wrong in 0.0% [0.0, 0.0].\n" in as_markdown(study)
    for entry in study["results"]:
        entry["verdicts"] = {"clean": {"toxic": 1, "uncertain": 3}, "junk": {"toxic": 3, "uncertain": 1, "none": 4}}
    assert "Called toxic by auto: wrong in 25.0% [25.0, 25.0]; found: 75% of junk.\n" in as_markdown(study)


def test_a_share_of_the_way_is_told_where_there_is_certainly_a_way(study: Record) -> None:
    for method, scores in {"everything": (0.0, 0.1, 0.2), "oracle": (0.2, 0.3, 0.4)}.items():
        study["methods"].append(method)
        study["results"] += [result(method, seed, score, 1.0) for seed, score in enumerate(scores, start=1)]
    assert "Of the way from everything to oracle, auto goes 50.0% [50.0, 50.0].\n" in as_markdown(study)
    next(r for r in study["results"] if r["method"] == "oracle" and r["seed"] == 1)["score"] = 0.0
    uncertain = "oracle is +13.3 [-15.4, +42.0] points above everything: too uncertain to tell auto's share of it.\n"
    assert uncertain in as_markdown(study)


def test_settings_without_common_seeds_have_no_mean(study: Record) -> None:
    study["settings"].append("two")
    study["results"].append(result("random", 4, 0.5, 1.0) | {"setting": "two"})
    assert "### All settings: keep 50%, Protocol B\n\nNo method has a seed that all settings have.\n" in as_markdown(
        study
    )


def test_how_a_second_look_tells_rows_apart_is_said_of_the_methods_that_have_both(study: Record) -> None:
    """Older results have no AUC of p-values."""
    for entry in study["results"]:
        entry["auc"] = {
            "utility": 0.8,
            "late_loss": 0.9,
            **({"corrupted_p": 0.95} if entry["method"] == "auto" else {}),
        }
    assert "AUC of late losses and of p-values: auto 0.900 and 0.950.\n" in as_markdown(study)
    for entry in study["results"]:
        entry["auc"] = {"utility": None, "late_loss": None, "corrupted_p": None}  # a clean pool
    assert "AUC of late losses" not in as_markdown(study)


def test_a_mark_is_of_all_seeds_whatever_is_known_of_their_cost(study: Record, tmp_path: Path) -> None:
    found = marks(study["results"], "one", (0.5, "B"))
    scores = [pytest.approx(value) for value in (0.1, 0.2, 0.3)]
    assert found == {"random": (23, scores), "auto": (18, scores)}
    title = panel_title(study["results"], "one", (0.5, "B"))
    assert title == "one (B, keep 50%)\ncost of 2 of 3 seeds: auto\ncost not known: slow"
    plot_cost(study, tmp_path / "study.png")
    assert (tmp_path / "study.png").stat().st_size > 10_000


def test_it_is_said_which_methods_are_not_the_papers_to_the_letter(study: Record) -> None:
    assert "estimator" not in as_markdown(study)  # older results do not tell of methods
    reverse = {"scoring": {"one_step": {"estimator": "reverse"}}}
    study["study"] = {
        "common": {}, "settings": {"one": {}, "two": {"scoring": {"one_step": {"estimator": "forward"}}}},
        "methods": {
            "paper": {"strategy": "paper", **reverse},
            "cold": {"strategy": "paper", "proxy": {"warmup_fraction": 0}, **reverse},
            "letter": {"strategy": "paper", "scoring": {"one_step": {"estimator": "exact"}}},
            "cascade": {"strategy": "paper", "scoring": {"second_stage": "cascade", **reverse["scoring"]}},
            "set_above": {"strategy": "paper"},
            "one_step": {"strategy": "one_step", **reverse},
            "auto": {},
        },
    }  # fmt: skip
    first_order = "first order in place of the simulated step"
    assert [line for line in as_markdown(study).splitlines() if "estimator" in line] == [
        f"paper, cold: estimator `reverse`, {first_order}.",
        f"cascade: estimator `reverse`, {first_order} but for rows near the cut and a sample.",
        f"set_above: estimator `forward`, {first_order}.",
    ]


def test_it_is_said_which_method_was_run_at_which_commit(study: Record) -> None:
    assert "`ost-hf study` at abc; machine not known" in as_markdown(study)
    for entry in study["results"]:
        if entry["method"] == "auto":
            entry["commit"] = "def"
    assert "`ost-hf study` at abc; auto at def; machine not known" in as_markdown(study)


def test_a_machine_is_told_by_what_is_known_of_it(study: Record) -> None:
    old = {
        "workers": 1, "processor": "a processor", "cores": 2, "accelerators": [], "python": "3.11",
        "libraries": {"torch": "2"},
    }  # fmt: skip
    study["machines"] = [old, {**old, "processor_model": "family 23, model 1", "instructions": "AVX2"}]
    table = as_markdown(study)
    assert "2 cores of a processor, Python 3.11" in table
    assert "2 cores of a processor (family 23, model 1, AVX2), Python 3.11" in table


def test_methods_with_a_role_look_the_same_in_every_plot(study: Record) -> None:
    study["methods"] = ["random", "oracle", "everything", "auto"]
    found = styles(study)
    study["methods"] = ["auto", "paper", "everything", "random", "oracle"]
    others = styles(study)
    assert [found[name] for name in ("auto", "everything", "oracle")] == [
        others[name] for name in ("auto", "everything", "oracle")
    ]
    assert len({tuple(style.values()) for style in others.values()}) == 5
