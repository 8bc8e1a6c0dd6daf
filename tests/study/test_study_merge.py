"""Results of a study that several machines ran, or at several commits, put together; and parts of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ost_hf.cli.study import study as main
from ost_hf.errors import ConfigError
from ost_hf.study.provenance import machine

Record = dict[str, Any]


def part(seeds: tuple[int, ...], commit: str, weights: str, method: str = "auto", **fields: Any) -> Record:
    """One method's results; ``fields`` are those of its arms."""
    rows = [
        {
            "method": method, "setting": "one", "seed": seed, "keep_ratio": 0.5, "protocol": "B", "commit": commit,
            "score": 0.1 * seed, "seconds": {"score": 1.0, "select": 0.0, "train": 2.0, "evaluate": 1.0},
            "weights": {"target": weights}, "configuration": "same", **fields,
        }
        for seed in seeds
    ]  # fmt: skip
    return {
        "commands": [f"ost-hf study --config x.yaml --seeds {' '.join(map(str, seeds))}"], "commits": [commit],
        "machines": [], "reference": "auto", "everything": "everything", "oracle": "oracle", "settings": ["one"],
        "truth": None, "methods": ["auto", "paper", "random"], "study": {"keep_ratios": [0.5]}, "results": rows,
        "datamodelling": [],
    }  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Writes what is given and returns where."""

    def write(results: Any, name: str) -> str:
        (tmp_path / name).write_text(results if isinstance(results, str) else json.dumps(results))
        return str(tmp_path / name)

    return write


def report(folder: Path, *words: str) -> Record:
    main(["--results", *words, "--output", str(folder)])
    return json.loads((folder / "results.json").read_text())


def refusal(*words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        main(["--results", *words])
    return str(caught.value)


def test_machines_share_a_study(tmp_path: Path, file: Any) -> None:
    here, there = file(part((3, 4), "abc", "x"), "here.json"), file(part((1, 2), "def", "y"), "there.json")
    whole = report(tmp_path / "whole", here, there)
    assert [row["seed"] for row in whole["results"]] == [1, 2, 3, 4]
    assert whole["commits"] == ["abc", "def"]
    table = (tmp_path / "whole" / "results.md").read_text()
    assert "25.0%" in table
    assert "`ost-hf study --config x.yaml --seeds 1 2`; `ost-hf study --config x.yaml --seeds 3 4`" in table
    assert "Models of one were made anew: 2 sets of weights" in table


def test_what_does_not_belong_together_is_refused(tmp_path: Path, file: Any) -> None:
    here, there, output = file(part((3, 4), "abc", "x"), "here.json"), "there.json", ("--output", str(tmp_path / "new"))
    report(tmp_path / "whole", here, file(part((1, 2), "def", "y"), there))
    whole = str(tmp_path / "whole" / "results.json")
    # The same results twice would count twice, and results of another study are no repetition of this one.
    assert "need --output" in refusal(here, whole)
    assert "is one of the parts" in refusal(here, whole, "--output", str(tmp_path / "whole"))
    twice = refusal(here, whole, *output)
    assert "both hold setting one, seed 3, of auto: take the other methods, settings or seeds of one of them" in twice
    other = {**part((1, 2), "def", "y"), "study": {"keep_ratios": [0.2]}}
    assert "of different studies (study differs)" in refusal(here, file(other, there), *output)
    other = part((1, 2), "def", "y", configuration="another default")
    assert "auto of setting one had another configuration" in refusal(here, file(other, there), *output)
    assert "it lacks study, methods" in refusal(here, file("{}", there), *output)
    assert "is no JSON" in refusal(here, file("no JSON", there))


def test_one_method_is_run_again_beside_the_others_of_before(tmp_path: Path, file: Any) -> None:
    others = file(part((3, 4), "abc", "x", "random", machine=machine()), "others.json")
    again = file(part((3, 4), "def", "x", machine=machine()), "again.json")
    assert len(report(tmp_path / "whole", others, again)["results"]) == 4
    assert "at abc; auto at def" in (tmp_path / "whole" / "results.md").read_text()


def test_a_part_is_taken_of_results(tmp_path: Path, file: Any) -> None:
    both = part((3, 4), "abc", "x")
    both["results"] += part((3, 4), "def", "x", "random")["results"]
    path, output = file(both, "both.json"), str(tmp_path / "taken")
    taken = report(tmp_path / "taken", path, "--methods", "random")
    assert {row["method"] for row in taken["results"]} == {"random"}
    assert taken["commits"] == ["def"]
    taken = report(tmp_path / "taken", path, "--seeds", "4", "--settings", "one")
    assert [(row["method"], row["seed"]) for row in taken["results"]] == [("auto", 4), ("random", 4)]
    assert "need --output" in refusal(path, "--methods", "random")
    assert "autp" in refusal(path, "--methods", "autp", "--output", output)
    assert "there are no results of method paper; seed 3" in refusal(
        path, "--methods", "paper", "--seeds", "3", "--output", output
    )
    assert "--results runs nothing" in refusal(path, "--collect")
    assert "--results runs nothing" in refusal(path, "--workers", "2")


@pytest.mark.parametrize(
    ("weights", "fields", "differing"),
    [
        ("y", {}, "weights"),
        ("x", {"machine": {"processor": "a", "processor_model": "2"}}, "machines"),
        ("x", {"data": {"pool": "y"}}, "data"),
    ],
)
def test_a_pair_has_models_data_and_machine_alike(
    tmp_path: Path, file: Any, weights: str, fields: Record, differing: str
) -> None:
    known = {"machine": {"processor": "a", "processor_model": "1"}, "data": {"pool": "x"}}
    one = file(part((3,), "abc", "x", **known), "one.json")
    other = file(part((3,), "def", weights, "random", **{**known, **fields}), "other.json")
    message = f"both hold setting one, seed 3, of other {differing}: methods are paired"
    assert message in refusal(one, other, "--output", str(tmp_path / "mixed"))
    # Results of before tell less, and what they tell is the same in both; it makes no pair of the two others.
    older = file(part((3,), "ghi", "x", "paper", machine={"processor": "a"}), "older.json")
    report(tmp_path / "with_older", older, one)
    assert message in refusal(older, one, other, "--output", str(tmp_path / "mixed"))
