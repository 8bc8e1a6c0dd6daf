"""Training on a selection under DDP, ZeRO-2 and ZeRO-3; scoring with two processes."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from ost_hf.cli.main import main
from ost_hf.data.rows import Rows
from ost_hf.models import ModelConfig, load_model
from ost_hf.proxy.config import ProxyConfig
from ost_hf.runs.yaml_values import dump_yaml
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.runner import score_pool
from ost_hf.selection.config import SelectionConfig
from ost_hf.selection.kept import Selection
from ost_hf.selection.selector import select_rows
from ost_hf.tables.score_table import ScoreTable

WORKER = str(Path(__file__).with_name("train_worker.py"))
WAITING_WORKER = str(Path(__file__).with_name("waiting_worker.py"))
KINDS = {"multi_gpu": "MULTI_CPU", "deepspeed_zero2": "DEEPSPEED", "deepspeed_zero3": "DEEPSPEED"}


@pytest.fixture
def folder(tmp_path: Path, vlm_path: str, pool_dataset, anchor_dataset) -> Path:
    """Pool, anchors and a selection of twenty rows."""
    pool_dataset.to_parquet(tmp_path / "pool.parquet")
    anchor_dataset.to_parquet(tmp_path / "anchors.parquet")
    request = ScoringRequest(tmp_path, Rows(pool_dataset), None, ProxyConfig(vlm_path), ScoringConfig("random"))
    select_rows(score_pool(request).read(), SelectionConfig(keep_count=20)).write(tmp_path)
    return tmp_path


# One launch each for the tests that look at what it leaves.
_trained: dict[str, Path] = {}


@pytest.fixture
def trained(folder: Path, vlm_path: str, launch, tmp_path_factory) -> Callable[[str], Path]:
    """``trained(config)`` is a folder like the one above after a training under a config."""

    def train(config: str) -> Path:
        if config not in _trained:
            copy = shutil.copytree(folder, tmp_path_factory.mktemp(config), dirs_exist_ok=True)
            launch(config, WORKER, str(copy), vlm_path, KINDS[config], "selection")
            _trained[config] = copy
        return _trained[config]

    return train


@pytest.mark.parametrize("config", KINDS)
def test_training_on_a_selection_is_really_distributed(config: str, vlm_path: str, trained) -> None:
    folder = trained(config)
    facts = json.loads((folder / "facts.json").read_text())
    rows = facts.pop("rows")
    kept = Selection.read(folder).kept["row"].to_pylist()
    # Shared out, not repeated: each kept row once, and four again to fill the last batch.
    assert sorted(set(rows)) == sorted(kept)
    assert len(rows) == 24
    assert facts == {
        "distributed_type": KINDS[config],
        "num_processes": 2,
        # Five batches of four over two processes; the last is shared out by starting again.
        "rows_in_this_process": 4 * math.ceil(5 / 2),
        "kept": 20,
    }
    # It reloads through the Auto classes, whole.
    loaded = load_model(ModelConfig(str(folder / "target"))).state_dict()
    before = load_model(ModelConfig(vlm_path)).state_dict()
    assert loaded.keys() == before.keys()
    assert max(float((loaded[name] - before[name]).abs().max()) for name in before) > 1e-4


def test_final_weights_of_ddp_zero2_and_zero3_agree(trained) -> None:
    targets = {config: load_file(trained(config) / "target" / "model.safetensors") for config in KINDS}
    ddp = targets["multi_gpu"]
    for config, target in targets.items():
        assert ddp.keys() <= target.keys(), config
        difference = max(float((target[name] - weight).abs().max()) for name, weight in ddp.items())
        print(f"{config}: largest difference from DDP {difference:.1e}")
        assert difference < 1e-5


def test_processes_wait_for_one_another_longer_than_a_training_would(launch) -> None:
    launch("multi_gpu", WAITING_WORKER)


def test_two_processes_resume_in_the_middle_of_an_epoch(folder: Path, vlm_path: str, launch) -> None:
    launch("multi_gpu", str(Path(WORKER).with_name("resume_worker.py")), str(folder), vlm_path)
    facts = json.loads((folder / "facts.json").read_text())
    # The checkpoint at step 4 is one step into the second epoch.
    assert facts["steps_per_epoch"] == 3
    assert facts["difference"] < 1e-6


def test_proxy_scores_beside_a_zero3_target(folder: Path, vlm_path: str, launch) -> None:
    launch("deepspeed_zero3", WORKER, str(folder), vlm_path, "DEEPSPEED", "proxy")
    table = ScoreTable(folder / "out" / "ost" / "scores").read()
    assert table["status"].to_pylist() == ["ok"] * 60
    assert Selection.read(folder / "out" / "ost").kept_count == 20
    assert json.loads((folder / "facts.json").read_text())["num_processes"] == 2


# The cascade scores all rows by `reverse`, and so do the second look and the killed run below.
@pytest.mark.parametrize("settings", [{"one_step.estimator": "forward"}, {"second_stage": "cascade"}])
def test_two_processes_give_the_table_of_one(
    folder: Path, vlm_path: str, pool_dataset, anchor_dataset, launch, settings: dict[str, str]
) -> None:
    arguments = {
        "pool.path": folder / "pool.parquet",
        "anchors.path": folder / "anchors.parquet",
        "proxy.model": vlm_path,
        "proxy.warmup_min_steps": 5,
        "proxy.warmup_batch_size": 6,
        **{f"scoring.{name}": value for name, value in settings.items()},
        "scoring.one_step.utility": "raw",
        "scoring.part_size": 25,
        "strategy": "one_step",
        "run_dir": folder / "two",
    }
    flags = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    launch("multi_gpu", "-m", "ost_hf.cli.main", "score", *flags)
    table = ScoreTable(folder / "two" / "scores").read()
    proxy = ProxyConfig(vlm_path, warmup_min_steps=5, warmup_batch_size=6)
    stage = settings.get("second_stage")
    scoring = ScoringConfig(second_stage=stage, sections={"one_step": {"utility": "raw"}})
    if stage is None:
        scoring = scoring.with_options(estimator="forward")
    one = score_pool(ScoringRequest(folder / "one", Rows(pool_dataset), Rows(anchor_dataset), proxy, scoring)).read()
    for column in ("example_id", "row", "status", "tokens"):
        assert table[column].to_pylist() == one[column].to_pylist()
    for column in ("utility", "utility_first_order") if stage is not None else ("utility",):
        values = [np.array(each[column].to_pylist()) for each in (one, table)]
        # Sums of gradients in another order: float32, carried through the warm-up's steps.
        assert np.abs(values[0] - values[1]).max() < 1e-3 * values[0].std()


def test_two_processes_take_the_second_look_of_one_and_end_one_that_was_killed(
    folder: Path, vlm_path: str, pool_dataset, anchor_dataset, launch
) -> None:
    look = {"min_steps": 4, "batch_size": 6, "rounds": 3, "cross_fit": True, "max_steps": 400}
    settings = {"sketch_size": 16, "part_size": 16}
    arguments = {
        "pool.path": folder / "pool.parquet",
        "anchors.path": folder / "anchors.parquet",
        "proxy.model": vlm_path,
        "proxy.warmup_min_steps": 5,
        "proxy.warmup_batch_size": 6,
        "scoring.second_stage": "second_look",
        **{f"scoring.second_look.{name}": value for name, value in look.items()},
        **{f"scoring.{name}": value for name, value in settings.items()},
        "run_dir": folder / "two",
    }
    flags = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    launch("multi_gpu", "-m", "ost_hf.cli.main", "score", *flags)
    table = ScoreTable(folder / "two" / "scores")
    proxy = ProxyConfig(vlm_path, warmup_min_steps=5, warmup_batch_size=6)
    scoring = ScoringConfig(second_stage="second_look", sections={"second_look": look}, **settings)
    one = score_pool(ScoringRequest(folder / "one", Rows(pool_dataset), Rows(anchor_dataset), proxy, scoring))
    assert (table.folder / "anchors.parquet").exists()

    def same_as_one() -> None:
        assert table.read()["example_id"].to_pylist() == one.read()["example_id"].to_pylist()
        for column in ("utility", "late_loss"):
            values = [np.array(each.read()[column].to_pylist()) for each in (one, table)]
            assert np.abs(values[0] - values[1]).max() < 1e-3 * values[0].std()

    same_as_one()
    counted, alone = ({name: part["row_passes"] for name, part in each.manifest()["cost"]["parts"].items()}
                      for each in (table, one))  # fmt: skip
    for name in ("warm_up", "anchors", "first", "second_look_training", "second_look_asking"):
        assert counted[name] == alone[name] > 0
    assert counted["set_up"] == 2 * alone["set_up"]  # each process makes the anchors' directions
    # Killed: of the last two rounds a part was not written yet, and none of the whole table.
    gone = [*table.folder.glob("part-*")]
    gone += [next((table.folder / "second_look" / f"round-{number}").glob("part-*")) for number in (2, 3)]
    for part in gone:
        part.unlink()
    launch("multi_gpu", "-m", "ost_hf.cli.main", "score", *flags)
    assert all(part.exists() for part in gone)
    same_as_one()
    # What was done again is counted again.
    again = {name: part["row_passes"] for name, part in table.manifest()["cost"]["parts"].items()}
    assert again["first"] == counted["first"]
    assert again["second_look_asking"] > counted["second_look_asking"]
    assert again["second_look_training"] > counted["second_look_training"]


def test_a_run_launches_its_stages_and_evaluates_as_one_process_does(
    folder: Path, vlm_path: str, test_dataset, on_cpu
) -> None:
    test_dataset = test_dataset.select(range(7))  # three batches; the processes' shares differ
    test_dataset.to_parquet(folder / "test.parquet")
    given = {
        "run_dir": str(folder / "run"),
        "strategy": "one_step",
        "pool": {"path": str(folder / "pool.parquet")},
        "anchors": {"path": str(folder / "anchors.parquet")},
        "proxy": {"model": vlm_path, "warmup_min_steps": 3, "warmup_batch_size": 4},
        "target": {"model": vlm_path},
        "training": {"max_steps": 2, "per_device_train_batch_size": 4, "save_strategy": "no", "report_to": "none"},
        "evaluation": {
            "path": str(folder / "test.parquet"), "reference_column": "solution", "batch_size": 3, "max_new_tokens": 8,
        },
        "accelerate": {
            "score": on_cpu("multi_gpu"), "train": on_cpu("deepspeed_zero3"), "evaluate": on_cpu("multi_gpu"),
        },
    }  # fmt: skip
    (folder / "run.yaml").write_text(dump_yaml(given))
    assert main(["run", "--config", str(folder / "run.yaml")]) == 0
    written = [folder / "run" / name for name in ("metrics.json", "predictions.jsonl")]
    of_two = [path.read_text() for path in written]
    assert len(of_two[1].splitlines()) == len(test_dataset)
    assert main(["evaluate", "--run_dir", str(folder / "run"), "--accelerate.evaluate", "null"]) == 0
    assert [path.read_text() for path in written] == of_two


# By a launch as users type it, without a pair that stays.
def test_killed_run_of_two_processes_is_finished_by_one(
    folder: Path, vlm_path: str, pool_dataset, anchor_dataset, launch_alone
) -> None:
    proxy = ProxyConfig(vlm_path, warmup_min_steps=3, warmup_batch_size=4)
    arguments = (Rows(pool_dataset), Rows(anchor_dataset), proxy, ScoringConfig(part_size=7))
    whole = score_pool(ScoringRequest(folder / "whole", *arguments)).read()
    flags = ["--pool.path", str(folder / "pool.parquet"), "--anchors.path", str(folder / "anchors.parquet")]
    flags += ["--proxy.model", vlm_path, "--proxy.warmup_min_steps", "3", "--proxy.warmup_batch_size", "4"]
    flags += ["--scoring.part_size", "7", "--strategy", "one_step", "--run_dir", str(folder / "cut")]
    launch_alone("multi_gpu", "-m", "ost_hf.cli.main", "score", *flags)
    parts = sorted((folder / "cut" / "scores").glob("part-*.parquet"))
    for part in parts[1::2]:
        part.unlink()
    table = score_pool(ScoringRequest(folder / "cut", *arguments)).read()
    assert table["example_id"].to_pylist() == whole["example_id"].to_pylist()
    utilities = [np.array(each["utility"].to_pylist()) for each in (whole, table)]
    assert np.abs(utilities[0] - utilities[1]).max() < 1e-3 * utilities[0].std()
