"""The command itself, as users start it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
import yaml

from ost_hf.cli.commands import COMMANDS
from ost_hf.cli.main import main
from ost_hf.errors import OSTError
from ost_hf.runs.stage import find_stage
from ost_hf.tables.score_table import ScoreTable


def ost_hf(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ost_hf.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ},
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory, vlm_path, pool_dataset, anchor_dataset, test_dataset) -> Path:
    """A YAML for all stages on the tiny Qwen3-VL."""
    folder = tmp_path_factory.mktemp("cli")
    paths = {}
    few = {"pool": (pool_dataset, 30), "anchors": (anchor_dataset, 8), "evaluation": (test_dataset, 8)}
    for name, (dataset, count) in few.items():
        paths[name] = str(folder / f"{name}.parquet")
        dataset.select(range(count)).to_parquet(paths[name])
    given = {
        "run_dir": str(folder / "run"),
        "pool": {"path": paths["pool"]},
        "anchors": {"path": paths["anchors"]},
        "proxy": {"model": vlm_path, "warmup_min_steps": 3, "warmup_batch_size": 4},
        "scoring": {
            "part_size": 10,
            "second_look": {"rounds": 1, "epochs": 0.1, "min_steps": 2, "batch_size": 6},
        },
        "selection": {"keep_count": 12},
        "target": {"model": vlm_path},
        "training": {"max_steps": 2, "per_device_train_batch_size": 4, "save_strategy": "no", "report_to": "none"},
        "evaluation": {"path": paths["evaluation"], "reference_column": "solution", "max_new_tokens": 4},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(given))
    return folder / "config.yaml"


def test_version_and_overview() -> None:
    assert ost_hf("--version").stdout.strip() == "0.1.0"
    overview = ost_hf("--help").stdout
    assert all(command in overview for command in COMMANDS)


@pytest.mark.slow
def test_run_leaves_the_whole_run_directory(config: Path) -> None:
    result = ost_hf("run", "--config", str(config))
    assert result.returncode == 0, result.stderr
    folder = config.parent / "run"
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "duplicates.json", "proxy", "scores", "selection.parquet", "selection.json", "target",
        "metrics.json", "predictions.jsonl",
    }  # fmt: skip
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["rows"] == 8
    assert 0 <= metrics["exact_match"] <= 1
    assert len((folder / "predictions.jsonl").read_text().splitlines()) == 8
    assert json.loads((folder / "target" / "train_results.json").read_text())["train_rows_kept"] == 12
    stages = [line for line in result.stderr.splitlines() if line.startswith("stage: ")]
    assert re.search(r"^verdicts of \d+ scored rows: \d+ toxic, \d+ useful, \d+ uncertain$", result.stderr, re.M)
    assert stages == ["stage: score", "stage: select", "stage: train", "stage: evaluate"]


@pytest.mark.slow
def test_stages_run_one_by_one_from_the_run_directory(config: Path, tmp_path: Path, capsys) -> None:
    run_dir = str(tmp_path / "run")
    assert main(["score", "--config", str(config), "--run_dir", run_dir]) == 0
    before = ScoreTable(tmp_path / "run" / "scores").read()
    assert main(["select", "--run_dir", run_dir, "--selection.keep_count", "5"]) == 0
    # With the first YAML again, the rows would be others.
    assert main(["train", "--config", str(config), "--run_dir", run_dir]) == 2
    assert "was made with other settings: selection.keep_count was 5, now 12" in capsys.readouterr().err
    assert main(["train", "--run_dir", run_dir, "--training.max_steps=1", "--training.logging_steps", "1"]) == 0
    assert main(["evaluate", "--run_dir", run_dir]) == 0
    results = json.loads((tmp_path / "run" / "target" / "train_results.json").read_text())
    assert results["train_rows_kept"] == 5
    capsys.readouterr()
    assert main(["select", "--run_dir", run_dir, "--selection.keep_count", "7"]) == 0
    assert main(["evaluate", "--run_dir", run_dir]) == 2
    assert "was trained on another selection than" in capsys.readouterr().err
    assert main(["evaluate", "--run_dir", run_dir, "--evaluation.model", f"{run_dir}/target"]) == 0
    # Replayed in another place it gives the same table.
    assert main(["score", "--config", f"{run_dir}/config.yaml", "--run_dir", str(tmp_path / "again")]) == 0
    assert ScoreTable(tmp_path / "again" / "scores").read().equals(before)


@pytest.mark.slow
def test_a_target_whose_training_was_cut_off_is_not_evaluated(config: Path, tmp_path: Path, capsys) -> None:
    words = ["--config", str(config), "--run_dir", str(tmp_path / "run")]
    assert main(["score", *words, "--scoring.scorer", "random"]) == 0
    assert main(["select", *words]) == 0
    assert main(["train", *words, "--training.max_steps=1"]) == 0
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(transformers.Trainer, "save_metrics", interrupt)
        with pytest.raises(KeyboardInterrupt):
            main(["train", *words, "--training.max_steps=1"])
    capsys.readouterr()
    assert (tmp_path / "run" / "target" / "model.safetensors").exists()
    assert main(["evaluate", *words]) == 2
    assert "training did not end: run the train stage, or set evaluation.model" in capsys.readouterr().err
    assert main(["train", *words, "--training.max_steps=1"]) == 0
    # Nothing to go on from: what was trained before stays finished.
    assert main(["train", *words, "--training.max_steps=1", "--training.resume_from_checkpoint=true"]) == 2
    assert "there is no checkpoint in" in capsys.readouterr().err
    assert main(["evaluate", *words]) == 0


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_earlier_flags_still_decide_is_said(config: Path, tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO")
    words = ["--run_dir", str(tmp_path / "run")]
    assert main(["score", "--config", str(config), *words, "--scoring.scorer", "random"]) == 0
    assert "from " not in caplog.text
    assert main(["select", *words, "--selection.keep_count", "null", "--selection.keep_ratio", "0.2"]) == 0
    assert "from " not in caplog.text
    assert main(["select", *words, "--selection.balance_by", "kind"]) == 0
    assert f"from {tmp_path / 'run' / 'config.yaml'}: selection.keep_ratio 0.2\n" in caplog.text
    (kept,) = (record.getMessage() for record in caplog.records if "kept by kind: " in record.getMessage())
    assert kept.startswith("kept by kind: clean 4 of 19, ")
    assert main(["select", *words, "--strategy", "one_step"]) == 0
    caplog.clear()
    assert main(["select", *words]) == 0
    assert "config.yaml: strategy one_step, selection.keep_ratio 0.2, selection.balance_by kind\n" in caplog.text


def test_refused_command_leaves_the_run_directory_as_it_was(config: Path, tmp_path: Path, capsys) -> None:
    run_dir = str(tmp_path / "run")
    assert main(["score", "--config", str(config), "--run_dir", run_dir, "--scoring.scorer", "random"]) == 0
    before = (tmp_path / "run" / "config.yaml").read_text()
    assert main(["score", "--config", str(config), "--run_dir", run_dir]) == 2
    message = capsys.readouterr().err
    assert "holds scores of another run: duplicates.anchors was None, now 'drop'; " in message
    assert "duplicates.within_pool was 'report', now 'drop'; " in message
    assert "scoring.scorer was 'random', now 'one_step'" in message
    assert (tmp_path / "run" / "config.yaml").read_text() == before


def test_settings_of_what_was_made_before_a_failure_stay(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(config: object) -> None:
        raise OSTError("out of luck")

    run_dir = selected(config, tmp_path)
    monkeypatch.setattr(find_stage("train"), "prepare", fail)
    words = ["--run_dir", str(run_dir), "--scoring.scorer", "random", "--selection.keep_count", "5"]
    assert main(["run", "--config", str(config), *words]) == 2
    # The selection is of these settings.
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["selection"]["keep_count"] == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["score", "--scoring.batchsize", "4"], "field of section scoring 'batchsize' (did you mean 'batch_size'"),
        (["train", "--training.learning_rat", "1"], "unknown field of section training 'learning_rat' (did you mean"),
        (["train", "--training.learning_rate"], "--training.learning_rate needs a value"),
        (["train", "--training.lr_scheduler_type", "zigzag"], "section training:"),
        (["select", "--training.max_steps", "4"], "'--training.max_steps'; train, run take it; see "),
        (["select", "--selection.keep_ratio", "2"], "selection.keep_ratio must be a number > 0 and <= 1, got 2"),
        (["train", "--run_dir", "nowhere"], "run the select stage first"),
        (["evaluate", "--run_dir", "nowhere"], "run the train stage, or set evaluation.model"),
        (["score", "--pool.path", "missing.jsonl"], "missing.jsonl does not exist"),
        (["score", "--pool.images_column", "picture"], "there is no column 'picture'; there are: "),
        (["score", "--accelerate.config_file", "missing.yaml"], "there is no accelerate config missing.yaml"),
        (["score", "--strategy", "setwise"], "got 'setwise' (selection.order has setwise)"),
        (["score", "--stratgy", "paper"], "'--stratgy' (did you mean '--strategy'?); see `ost-hf score --help-all`"),
        (["score", "--selection.keep_ratio", "0.5"], "'--selection.keep_ratio'; select, run take it; see "),
        (["evaluate", "--strategy", "paper"], "'--strategy'; score, doctor, select, run take it; see "),
        (["score", "--zzz"], "unknown argument of score '--zzz'; see `ost-hf score --help-all`"),
        (["push", "--run_dir", "nowhere"], "needs the section hub (hub.repo_id)"),
    ],
)
def test_mistakes_end_with_a_message_and_status_two(
    config: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if "train" in words and "--run_dir" not in words:
        words = [*words, "--run_dir", str(selected(config, tmp_path))]
    elif "--run_dir" not in words:
        words = [*words, "--run_dir", str(tmp_path / "new")]
    assert main([words[0], "--config", str(config), *words[1:]]) == 2
    error = capsys.readouterr().err
    assert f"ost-hf {words[0]}: error: " in error
    assert message in error


def selected(config: Path, tmp_path: Path) -> Path:
    """A run directory with a selection."""
    run_dir = tmp_path / "run"
    assert main(["score", "--config", str(config), "--run_dir", str(run_dir), "--scoring.scorer", "random"]) == 0
    assert main(["select", "--run_dir", str(run_dir)]) == 0
    return run_dir


@pytest.mark.slow
def test_training_goes_on_from_its_last_checkpoint(config: Path, tmp_path: Path) -> None:
    run_dir = selected(config, tmp_path)
    words = ["--run_dir", str(run_dir), "--training.save_strategy", "steps", "--training.save_steps", "1"]
    assert main(["train", *words, "--training.max_steps", "2"]) == 0
    first = run_dir / "target" / "checkpoint-1" / "trainer_state.json"
    written = first.stat().st_mtime_ns
    assert main(["train", *words, "--training.max_steps", "3", "--training.resume_from_checkpoint", "true"]) == 0
    # A training from the start would write it anew.
    assert first.stat().st_mtime_ns == written
    assert (run_dir / "target" / "checkpoint-3").is_dir()


@pytest.mark.slow
def test_a_checkpoint_of_another_selection_is_not_gone_on_from(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = selected(config, tmp_path)
    words = ["--run_dir", str(run_dir), "--training.save_strategy", "steps", "--training.save_steps", "1"]
    assert main(["train", *words, "--training.max_steps", "1"]) == 0
    assert main(["select", "--run_dir", str(run_dir), "--selection.keep_count", "7"]) == 0
    again = ["train", *words, "--training.max_steps", "2", "--training.resume_from_checkpoint"]
    capsys.readouterr()
    assert main([*again, "true"]) == 2
    assert "was trained on another selection than" in capsys.readouterr().err
    # Named, it is meant.
    assert main([*again, str(run_dir / "target" / "checkpoint-1")]) == 0


@pytest.mark.slow
def test_a_run_is_asked_again_by_its_own_configuration(config: Path, tmp_path: Path, anchor_dataset, capsys) -> None:
    first, again, new = tmp_path / "first", tmp_path / "again", tmp_path / "new.parquet"
    anchor_dataset.select(range(4, 12)).to_parquet(new)
    words = ["--config", str(config), "--run_dir", str(first), "--scoring.store", "true"]
    assert main(["score", *words, "--strategy", "one_step"]) == 0
    reuse = ["score", "--reuse", str(first), "--anchors.path", str(new)]
    assert main([*reuse, "--run_dir", str(again)]) == 0
    given = yaml.safe_load((again / "config.yaml").read_text())
    assert (given["reuse"], given["strategy"]) == (str(first), "one_step")
    assert given["pool"] == yaml.safe_load(config.read_text())["pool"]
    assert ScoreTable(again / "scores").manifest()["reuse"]["rows_stored"] == 30
    # It goes on, and selects, by what it has noted.
    next((again / "scores").glob("part-*")).unlink()
    assert main(["score", "--run_dir", str(again)]) == 0
    assert main(["select", "--run_dir", str(again)]) == 0
    assert len(ScoreTable(again / "scores").read()) == 30
    capsys.readouterr()
    for words, message in (
        (reuse, "reuse names the run directory itself"),
        (
            ["select", "--run_dir", str(again), "--reuse", str(first)],
            "unknown argument of select '--reuse'; score, run take it",
        ),
        ([*reuse, "--run_dir", str(tmp_path / "c"), "--proxy.lora_r", "4"], "proxy.lora_r was 8, now 4"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
