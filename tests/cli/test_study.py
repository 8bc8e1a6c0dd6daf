"""A study: its arms, its resumption, and what it writes."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from ost_hf.cli.study.config import load_study
from ost_hf.cli.study.datamodelling import read_datamodelling
from ost_hf.cli.study.description import area_under_curve, extra_copies_kept
from ost_hf.cli.study.devices import device_of_worker, listed_devices
from ost_hf.cli.study.main import collect, run_study
from ost_hf.cli.study.markers import identity, read_done, write_done
from ost_hf.cli.study.plan import arms, configuration, filled, groups, prepare_command, repetition
from ost_hf.cli.study.provenance import configuration_hash
from ost_hf.cli.study.worker import run_group
from ost_hf.cli.yaml_values import dump_yaml
from ost_hf.errors import ConfigError, DataError, RunDirectoryError

Record = dict[str, Any]


@pytest.fixture
def given(tmp_path: Path, vlm_path: str) -> Record:
    """A study of ten steps on forty rows."""
    return {
        "run_dir": str(tmp_path / "study"),
        "seeds": [5, 6],
        "workers": 2,
        "keep_ratios": [0.25],
        "protocols": ["A", "B"],
        "reference": "one_step",
        "truth": {"column": "kind", "clean": "clean"},
        "datamodelling": {"subsets": 3, "share": 0.2, "max_steps": 2},
        "settings": {"tiny": {"target": {"model": vlm_path}, "proxy": {"model": vlm_path}}},
        "common": {
            "prepare": [
                "python", "recipes/handwritten_arithmetic/study_data.py", "--output", "{data}", "--seed", "{seed}",
                "--pool_rows", 40, "--anchor_rows", 6, "--test_rows", 10,
            ],
            "pool": {"path": "{data}/pool.parquet"},
            "anchors": {"path": "{data}/anchors.parquet"},
            "proxy": {"warmup_min_steps": 2, "warmup_batch_size": 4},
            "training": {"max_steps": 8, "per_device_train_batch_size": 4, "save_strategy": "no", "report_to": "none"},
            "evaluation": {"path": "{data}/test.parquet", "reference_column": "solution", "max_new_tokens": 4},
        },
        "methods": {
            "untrained": {"untrained": True},
            "everything": {"scoring": {"scorer": "random"}, "selection": {"keep_ratio": 1.0}},
            "one_step": {"strategy": "one_step", "scoring": {"per_anchor": True}},
            "oracle": {"scoring": {"scorer": "column", "column": "is_clean"}, "selection": {"min_utility": 0.5}},
        },
    }  # fmt: skip


def write(given: Record, folder: Path) -> Path:
    path = folder / "study.yaml"
    path.write_text(dump_yaml(given))
    return path


def study(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ost_hf.cli.main", "study", *words],
        capture_output=True, text=True, check=False, cwd=root, env={**os.environ},
    )  # fmt: skip


def test_a_study_runs_resumes_and_reports(given: Record, tmp_path: Path, root: Path) -> None:
    path = str(write(given, tmp_path))
    first = study(root, "--config", path)
    assert first.returncode == 0, first.stderr[-3000:]
    results = json.loads((tmp_path / "study" / "results.json").read_text())
    by_name = {(r["method"], r["seed"], r["protocol"]): r for r in results["results"]}
    # Two protocols for three methods, and the base model, with two seeds.
    assert len(by_name) == 14
    assert all(0 <= result["score"] <= 1 for result in by_name.values())
    assert by_name["one_step", 5, "A"]["steps"] == 2  # a quarter of the pool, a quarter of the steps
    assert by_name["one_step", 5, "B"]["steps"] == 8
    assert by_name["one_step", 5, "B"]["rows_kept"] == 10
    assert by_name["everything", 6, "A"]["steps"] == 8
    oracle = by_name["oracle", 6, "B"]
    assert oracle["clean_share"] == oracle["auc"]["utility"] == oracle["kept_by"]["clean"] == 1
    assert {"score", "select", "train", "evaluate"} == set(oracle["seconds"])
    verdicts = by_name["one_step", 5, "B"]["verdicts"]
    assert sum(sum(counts.values()) for counts in verdicts.values()) == 40

    scores = {(record["method"], record["seed"]): record["score"] for record in results["datamodelling"]}
    assert set(scores) == {(name, seed) for name in ("everything", "one_step", "oracle") for seed in (5, 6)}
    assert all(-1 <= score <= 1 for score in scores.values())

    table = (tmp_path / "study" / "results.md").read_text()
    assert "### tiny: keep 25%, Protocol A" in table
    assert "| **one_step** |" in table
    assert "random subsets, means over seeds" in table
    # With other weights or settings they would be others.
    changed = load_study(path)
    changed.common["training"]["learning_rate"] = 0.5
    with pytest.raises(RunDirectoryError, match="made with other methods, settings, data or models"):
        read_datamodelling(changed, groups(changed)[0])
    assert (tmp_path / "study" / "results.png").stat().st_size > 10_000

    # The seeds on two machines would have come to the same.
    assert all(set(result["weights"]) == {"proxy", "target"} for result in results["results"])
    # Seeds and the folder of their data apart, repetitions are of one configuration.
    assert len({result["configuration"] for result in results["results"] if result["method"] == "one_step"}) == 1
    assert len({result["configuration"] for result in results["results"]}) == 4
    for seed in (5, 6):
        share = {name: [r for r in results[name] if r["seed"] == seed] for name in ("results", "datamodelling")}
        (tmp_path / f"{seed}.json").write_text(json.dumps(results | share))
    whole = tmp_path / "whole"
    made = study(root, "--results", str(tmp_path / "5.json"), str(tmp_path / "6.json"), "--output", str(whole))
    assert made.returncode == 0, made.stderr
    assert (whole / "results.md").read_text() == table

    # Nothing is done twice; a method that is new is all that is run.
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "study").rglob("result.json")}
    given["methods"]["random"] = {"scoring": {"scorer": "random"}}
    second = study(root, "--config", str(write(given, tmp_path)), "--workers", "1")
    assert second.returncode == 0, second.stderr[-3000:]
    assert all(p.stat().st_mtime_ns == at for p, at in before.items())
    # Both groups are one process's work, and both are heard of.
    assert "tiny, seed 5, random, keep-0.25-A" in second.stderr
    assert "tiny, seed 6, random, keep-0.25-B" in second.stderr
    assert "one_step" not in second.stderr

    # An arm of other settings is refused by name, and the others are run all the same.
    given["common"]["training"]["max_steps"] = 9
    given["methods"]["length"] = {"scoring": {"scorer": "length"}}
    third = study(root, "--config", str(write(given, tmp_path)), "--seeds", "5")
    assert third.returncode == 2
    assert "tiny, seed 5, oracle" in third.stderr
    assert "(training differs)" in third.stderr
    assert "tiny, seed 5, length, keep-0.25-B" in third.stderr


def test_the_table_is_made_again_from_the_file(tmp_path: Path, root: Path) -> None:
    rows = [
        {
            "method": method, "setting": "one", "seed": seed, "keep_ratio": 0.5, "protocol": "B", "commit": "abc",
            "score": score + 0.01 * seed, "seconds": {"score": None, "select": 0.0, "train": 2.0, "evaluate": 1.0},
        }
        for method, score in (("auto", 0.7), ("everything", 0.4), ("oracle", 0.8))
        for seed in (0, 1, 2)
    ]  # fmt: skip
    machine = {
        "workers": 1,
        "processor": "a processor",
        "cores": 2,
        "accelerators": [],
        "python": "3.11",
        "libraries": {"torch": "2"},
    }
    given = {
        "commands": ["ost-hf study --config x.yaml"], "commits": ["abc"], "machines": [machine],
        "reference": "auto", "everything": "everything", "oracle": "oracle", "settings": ["one"],
        "methods": ["everything", "auto", "oracle"], "results": rows, "truth": None, "datamodelling": [], "study": {},
    }  # fmt: skip
    (tmp_path / "gate.json").write_text(json.dumps(given))
    made = study(root, "--results", str(tmp_path / "gate.json"))
    assert made.returncode == 0, made.stderr
    assert "auto goes 75.0% [75.0, 75.0]" in made.stdout
    assert "| everything | 41.0% [38.5, 43.5] | +30.0 [+30.0, +30.0] |" in made.stdout
    assert (tmp_path / "gate.md").read_text() in made.stdout
    assert study(root, "--results", str(tmp_path / "none.json")).returncode == 2


def test_machines_share_a_study(tmp_path: Path, root: Path) -> None:
    def part(seeds: tuple[int, ...], commit: str, weights: str) -> Record:
        rows = [
            {
                "method": "auto", "setting": "one", "seed": seed, "keep_ratio": 0.5, "protocol": "B", "commit": commit,
                "score": 0.1 * seed, "seconds": {"score": 1.0, "select": 0.0, "train": 2.0, "evaluate": 1.0},
                "weights": {"target": weights}, "configuration": "same",
            }
            for seed in seeds
        ]  # fmt: skip
        return {
            "commands": [f"ost-hf study --config x.yaml --seeds {' '.join(map(str, seeds))}"], "commits": [commit],
            "machines": [], "reference": "auto", "everything": "everything", "oracle": "oracle", "settings": ["one"],
            "truth": None, "methods": ["auto"], "study": {"keep_ratios": [0.5]}, "results": rows, "datamodelling": [],
        }  # fmt: skip

    here, there = tmp_path / "here.json", tmp_path / "there.json"
    here.write_text(json.dumps(part((3, 4), "abc", "x")))
    there.write_text(json.dumps(part((1, 2), "def", "y")))
    whole = tmp_path / "whole"
    made = study(root, "--results", str(here), str(there), "--output", str(whole))
    assert made.returncode == 0, made.stderr
    results = json.loads((whole / "results.json").read_text())
    assert [row["seed"] for row in results["results"]] == [1, 2, 3, 4]
    assert results["commits"] == ["abc", "def"]
    table = (whole / "results.md").read_text()
    assert "25.0%" in table
    assert "`ost-hf study --config x.yaml --seeds 1 2`; `ost-hf study --config x.yaml --seeds 3 4`" in table
    assert "Models of one were made anew: 2 sets of weights" in table

    def refused(*words: str) -> str:
        made = study(root, "--results", *words)
        assert made.returncode == 2
        return made.stderr

    # The same results twice would count twice, and results of another study are no repetition of this one.
    assert "several results need --output" in refused(str(here), str(there))
    assert "is one of the parts" in refused(str(here), str(whole / "results.json"), "--output", str(whole))
    twice = refused(str(here), str(whole / "results.json"), "--output", str(tmp_path / "twice"))
    assert "both hold setting one, seed 3" in twice
    other = part((1, 2), "def", "y")
    there.write_text(json.dumps({**other, "study": {"keep_ratios": [0.2]}}))
    assert "of different studies (study differs)" in refused(str(here), str(there), "--output", str(tmp_path / "other"))
    other["results"][0]["configuration"] = "another default"
    there.write_text(json.dumps(other))
    assert "auto of setting one had another configuration" in refused(str(here), str(there), "--output", str(whole))
    there.write_text("{}")
    assert "it lacks study, methods" in refused(str(here), str(there), "--output", str(whole))
    there.write_text("no JSON")
    assert "is no JSON" in refused(str(there))


def test_sections_lie_over_one_another_and_names_are_filled_in(given: Record, tmp_path: Path) -> None:
    given["settings"]["tiny"]["selection"] = {"length_strata": 2}
    config = load_study(write(given, tmp_path))
    group = groups(config)[1]
    assert (group.setting, group.seed) == ("tiny", 6)
    first, second = (configuration(config, group, "one_step", arm) for arm in arms(config, "one_step"))
    assert first.run_dir.endswith("tiny/seed-6/one_step/keep-0.25-A")
    assert second.selection.keep_ratio == 0.25
    assert second.selection.length_strata == 2
    assert second.pool is not None
    assert second.pool.path == str(group.data / "pool.parquet")
    assert [second.proxy.seed, second.scoring.seed, second.selection.seed] == [6, 6, 6]  # type: ignore[union-attr]
    assert second.training["seed"] == 6
    assert [arm.name for arm in arms(config, "everything")] == ["keep-own-A", "keep-own-B"]
    command = prepare_command(config, group)
    assert command is not None
    assert command[-8:] == ["--seed", "6", "--pool_rows", "40", "--anchor_rows", "6", "--test_rows", "10"]
    assert filled(["{setting}-{seed}", 3, None], group) == ["tiny-6", 3, None]


def test_studies_share_sections_of_a_file(given: Record, tmp_path: Path) -> None:
    whole = load_study(write(given, tmp_path))
    common = given["common"]
    (tmp_path / "shared.yaml").write_text(dump_yaml({**common, "scoring": {"batch_size": 1, "part_size": 2}}))
    given["common"] = {"include": "shared.yaml", "scoring": {"batch_size": 5}}
    shared = load_study(write(given, tmp_path))
    assert shared.common == {**whole.common, "scoring": {"batch_size": 5, "part_size": 2}}
    for text, message in (
        ("include: other.yaml", "include no other"),
        ("- 1", "must hold sections"),
        ("scoring: x", "section scoring must hold fields, got 'x'"),
    ):
        (tmp_path / "shared.yaml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_study(write(given, tmp_path))
    given["common"] = {"include": "none.yaml"}
    with pytest.raises(ConfigError, match=r"there is no .*none\.yaml"):
        load_study(write(given, tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": 5}, "seeds must be a list, got 5"),
        ({"keep_ratios": 0.5}, r"keep_ratios must be a list, got 0\.5"),
        ({"count_by": "operation"}, "count_by must be a list, got 'operation'"),
        ({"protocols": ["C"]}, "protocols must be one of"),
        ({"keep_ratios": [1.5]}, "keep_ratios must be"),
        ({"reference": "autoo"}, "unknown method \\(reference\\) 'autoo'"),
        ({"settings": {"a/b": {}}}, "names become folders"),
        ({"truth": {"column": "kind"}}, "truth must hold column and clean"),
        ({"methods": {"auto": {"prepare": ["true"]}}, "reference": "auto"}, "methods.auto.prepare would do nothing"),
        ({"worker": 2}, "did you mean 'workers'"),
        ({"datamodelling": 3}, "datamodelling must hold subsets, share and max_steps, got 3"),
        ({"datamodelling": {"subsets": 3, "share": None, "max_steps": 2}}, "datamodelling must hold subsets, share"),
        ({"datamodelling": {"subsets": "x", "share": 7, "max_steps": -1}}, r"subsets must be an integer >= 3, got 'x'"),
        ({"datamodelling": {"subsets": 2, "share": 0.5, "max_steps": 1}}, r"subsets must be an integer >= 3, got 2"),
        ({"datamodelling": {"subsets": 3, "share": 7, "max_steps": 1}}, r"share must be a number > 0 and <= 1, got 7"),
        ({"datamodelling": {"subsets": 3, "share": 0, "max_steps": 1}}, r"share must be a number > 0 and <= 1, got 0"),
        ({"datamodelling": {"subsets": 3, "share": 1, "max_steps": -1}}, r"max_steps must be an integer >= 1, got -1"),
        ({"methods": ["auto"]}, "methods must hold names and their sections"),
    ],
)
def test_what_is_wrong_is_said(given: Record, tmp_path: Path, change: Record, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study(write({**given, **change}, tmp_path))


@pytest.mark.parametrize("protocol", ["A", "B"])
@pytest.mark.parametrize("steps", [None, 0, 2.5, True, "8"])
def test_both_protocols_need_a_number_of_steps_before_anything_runs(
    given: Record, tmp_path: Path, protocol: str, steps: object
) -> None:
    given["common"]["training"]["max_steps"] = steps
    study = load_study(write({**given, "protocols": [protocol]}, tmp_path))
    message = f"training.max_steps of method everything must be an integer >= 1, got {steps!r}: set it in common"
    with pytest.raises(ConfigError, match=re.escape(message)):
        run_study(study, groups(study), list(study.methods))
    assert not study.folder.exists()


def test_area_under_curve_counts_pairs() -> None:
    generator = np.random.default_rng(3)
    values, positive = generator.integers(0, 6, 60).astype(float), generator.random(60) < 0.4
    pairs = [(a > b) + 0.5 * (a == b) for a in values[positive] for b in values[~positive]]
    assert area_under_curve(values, positive) == pytest.approx(np.mean(pairs))
    assert area_under_curve(np.array([1.0, np.nan]), np.array([True, False])) is None


def test_extra_copies_are_those_beyond_the_first_of_a_group() -> None:
    groups = [0, None, 0, 1, 0, 1, None]
    assert extra_copies_kept(groups, [0, 1, 3, 6]) == 0  # one of each group: whichever it is
    assert extra_copies_kept(groups, [4, 5]) == 0
    assert extra_copies_kept(groups, [0, 2, 3]) == pytest.approx(1 / 3)
    assert extra_copies_kept(groups, range(7)) == 1
    with pytest.raises(DataError, match="no two rows"):
        extra_copies_kept([None, 1, 2], [0])


def test_two_studies_do_not_write_to_one_folder(
    given: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_study(write(given, tmp_path))
    group = groups(config)[0]
    group.folder.mkdir(parents=True)
    with FileLock(group.folder / "lock"):
        assert run_group(config, group, ["untrained"]) == []
    assert "tiny, seed 5: left to another `ost-hf study`" in capsys.readouterr().err
    assert not (group.folder / "log.txt").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EACCES])
def test_a_file_system_without_locks_is_said_and_other_errors_are_failures(
    given: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    class Unlockable(FileLock):  # type: ignore[misc, valid-type]
        def acquire(self, *arguments: object, **named: object) -> None:
            raise OSError(number, os.strerror(number))

    config = load_study(write(given, tmp_path))
    monkeypatch.setattr("ost_hf.cli.study.worker.FileLock", Unlockable)
    failures = run_group(config, groups(config)[0], ["untrained"])
    if number == errno.ENOLCK:
        assert failures == []
        assert "start no second study there" in capsys.readouterr().err
    else:
        assert "Permission denied" in failures[0]


def test_what_was_made_with_other_files_is_not_taken_for_done(given: Record, tmp_path: Path) -> None:
    study = load_study(write(given, tmp_path))
    group = groups(study)[0]
    config = configuration(study, group, "one_step")
    group.data.mkdir(parents=True)
    (group.data / "pool.parquet").write_bytes(b"rows")
    marker = tmp_path / "result.json"
    assert read_done(marker, config) is None
    made_with = identity(config)
    write_done(marker, config, made_with, {"score": 0.5})
    assert read_done(marker, config) == {"score": 0.5}
    (group.data / "pool.parquet").write_bytes(b"other rows")
    with pytest.raises(RunDirectoryError, match=r"\(files differs\)"):
        read_done(marker, config)
    # Nor is what began with other files than lie there when it ends.
    with pytest.raises(RunDirectoryError, match="changed while it was made"):
        write_done(marker, config, made_with, {"score": 0.5})


@pytest.mark.parametrize(
    ("given", "devices"),
    [
        ("3,5", ["3", "5"]),
        (" 0 , 1", ["0", "1"]),
        ("GPU-8932f937-d72c,MIG-3", ["GPU-8932f937-d72c", "MIG-3"]),
        ("1,-1,2", ["1"]),
        ("-1", []),
        ("", []),
    ],
)
def test_devices_are_those_that_cuda_reads_from_the_list(given: str, devices: list[str]) -> None:
    assert listed_devices(given) == devices


def test_workers_have_the_devices_in_turn_and_none_where_there_is_none() -> None:
    assert [device_of_worker(slot, ["3", "5"]) for slot in range(3)] == ["3", "5", "3"]
    assert [device_of_worker(slot, ["GPU-1"]) for slot in range(2)] == ["GPU-1", "GPU-1"]
    assert device_of_worker(0, []) is None


@pytest.mark.parametrize(
    ("accelerate", "seen"),
    [({}, {"3", "5"}), ({"train": "accelerate_configs/multi_gpu.yaml"}, {"3,5"})],
)
def test_each_worker_sees_a_device_of_its_own_unless_stages_are_launched(
    given: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accelerate: Record, seen: set[str]
) -> None:
    """The prepare command, which each worker's process starts, writes down what it sees."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    look = "import os, sys; open(sys.argv[1], 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    given["common"] |= {"prepare": ["python", "-c", look, "{data}/seen"], "accelerate": accelerate}
    study = load_study(write(given | {"seeds": [5, 6, 7]}, tmp_path))
    failures = run_study(study, groups(study), ["untrained"])
    assert len(failures) == 3  # there is no pool
    found = [(group.data / "seen").read_text() for group in groups(study)]
    assert set(found[:2]) == set(found) == seen


def test_results_are_of_all_seeds_that_are_there(given: Record, tmp_path: Path) -> None:
    path = write(given, tmp_path)
    study = load_study(path)
    (arm,) = arms(study, "untrained")
    for seed in (6, 7):  # the YAML has 5 and 6
        (group,) = groups(replace(study, seeds=[seed]))
        config = configuration(study, group, "untrained", arm)
        result = {"method": "untrained", "setting": "tiny", "seed": seed, "commit": "abc", "version": "0"}
        config.folder.mkdir(parents=True)
        write_done(config.folder / "result.json", config, identity(config), result)
    for name in ("seed-8", "seed-mine", "seed-mine/untrained/untrained"):
        (study.folder / "tiny" / name).mkdir(parents=True, exist_ok=True)
    (study.folder / "tiny" / "seed-mine" / "untrained" / "untrained" / "result.json").write_text("{}")
    results = collect(study, str(path))
    assert [result["seed"] for result in results["results"]] == [6, 7]
    assert results["commands"] == [f"ost-hf study --config {path} --seeds 6 7"]


def test_a_killed_process_takes_no_other_group_with_it(
    given: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first group's prepare command kills the process that called it."""
    kill = "import os, signal, sys; '5' in sys.argv[1:] and os.kill(os.getppid(), signal.SIGKILL)"
    given["common"]["prepare"] = ["python", "-c", kill, "{seed}"]
    config = load_study(write(given, tmp_path))
    failures = run_study(config, groups(config), ["untrained"])
    assert len(failures) == 2
    assert "tiny, seed 5: its process was killed, or ran out of memory" in failures
    assert any("tiny, seed 6: DataError" in failure and "pool.parquet" in failure for failure in failures)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": {"column": "kinds", "clean": "clean"}}, "truth: the pool has no column 'kinds'; there are: "),
        ({"truth": {"column": "kind", "clean": "right"}}, "truth: no row of the pool has kind 'right'; there are: "),
        ({"count_by": ["source"]}, "count_by: the pool has no column 'source'"),
        ({"copies": "group"}, "copies: the pool has no column 'group'"),
    ],
)
def test_columns_that_are_not_there_are_named_before_anything_is_trained(
    given: Record, tmp_path: Path, change: Record, message: str
) -> None:
    config = load_study(write({**given, **change}, tmp_path))
    failures = run_group(config, groups(config)[0], ["one_step"])
    assert len(failures) == 1
    assert message in failures[0]
    assert not (groups(config)[0].folder / "one_step").exists()


def test_repetitions_are_of_one_configuration_whatever_names_hold_the_seed(given: Record, tmp_path: Path) -> None:
    given["common"]["pool"] = {"path": "pools/{seed}.parquet"}
    config = load_study(write(given, tmp_path))
    hashes = {configuration_hash(configuration(config, repetition(group), "one_step")) for group in groups(config)}
    assert len(hashes) == 1


def test_cascade_looks_near_the_cut(given: Record, tmp_path: Path) -> None:
    given["methods"]["cascade"] = {"strategy": "one_step", "scoring": {"estimator": "cascade", "utility": "raw"}}
    config = load_study(write(given, tmp_path))
    assert configuration(config, groups(config)[0], "cascade").scoring.cascade_keep_ratio == 0.25
    given["methods"]["own"] = {**given["methods"]["cascade"], "selection": {"keep_ratio": 0.1}}
    config = load_study(write(given | {"keep_ratios": [0.2, 0.5]}, tmp_path))
    assert configuration(config, groups(config)[0], "own").scoring_near_the_cut.cascade_keep_ratio == 0.1
    with pytest.raises(ConfigError, match=r"methods\.cascade: with several keep_ratios cascade needs"):
        configuration(config, groups(config)[0], "cascade")
