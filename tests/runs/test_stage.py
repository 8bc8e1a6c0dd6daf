"""A stage says no before it begins: what is refused leaves the run directory as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ost_hf.cli.main import main
from ost_hf.errors import ConfigError
from ost_hf.runs.stage import STAGES, find_stage
from ost_hf.selection.kept import read_selection
from ost_hf.tables.score_table import ScoreTable


@pytest.fixture(scope="module")
def given(tmp_path_factory, vlm_path: str, pool_dataset, anchor_dataset, test_dataset) -> Path:
    """A YAML of cheap stages; its folder holds the data."""
    folder = tmp_path_factory.mktemp("stage")
    for name, dataset in (("pool", pool_dataset), ("anchors", anchor_dataset), ("test", test_dataset)):
        dataset.to_parquet(folder / f"{name}.parquet")
    sections = {
        "run_dir": str(folder / "unused"),
        "pool": {"path": str(folder / "pool.parquet")},
        "anchors": {"path": str(folder / "anchors.parquet")},
        "proxy": {"model": vlm_path, "warmup_min_steps": 2, "warmup_batch_size": 4},
        "scoring": {"scorer": "length"},
        "selection": {"keep_count": 8},
        "target": {"model": vlm_path},
        "training": {"max_steps": 1, "per_device_train_batch_size": 4, "save_strategy": "no", "report_to": "none"},
        "evaluation": {"path": str(folder / "test.parquet"), "limit": 4, "max_new_tokens": 2},
    }
    (folder / "given.yaml").write_text(yaml.safe_dump(sections))
    return folder / "given.yaml"


def files_in(folder: Path) -> dict[str, Any]:
    """Every file of a folder with what it holds, and every folder; nothing if there is no such folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    } | ({".": None} if folder.exists() else {})


REFUSED = [
    ("score", "--pool.path", "none.parquet"),
    ("score", "--scoring.scorer", "one_step", "--scoring.group_by", "topic"),
    ("score", "--scoring.scorer", "column", "--scoring.column.name", "none"),
    # A copy of an anchor stands in the pool, or of a test row.
    ("score", "--scoring.scorer", "rds", "--anchors.path", "POOL"),
    ("score", "--evaluation.path", "POOL"),
    ("score", "--proxy.model", "./none/at/all"),
    ("score", "--scoring.num_workers", "0", "--accelerate.num_processes", "1", "--pool.path", "none.parquet"),
    ("doctor", "--anchors.path", "none.parquet"),
    ("select", "--selection.order", "setwise"),
    ("select", "--selection.balance_by", "topic"),
    ("select", "--selection.min_utility", "1e9"),
    ("train", "--target.model", "./none/at/all"),
    ("train", "--training.max_steps", "many"),
    ("train", "--training.resume_from_checkpoint", "true"),
    ("evaluate", "--evaluation.path", "none.parquet"),
    ("evaluate", "--evaluation.reference_column", "none"),
    ("evaluate", "--evaluation.model", "./none/at/all"),
    ("run", "--training.max_steps", "many"),
    ("push", "--pool.path", "none.parquet", "--hub.repo_id", "me/mine"),
]


@pytest.mark.slow
@pytest.mark.parametrize("words", REFUSED, ids=lambda words: "-".join(words[:2]))
@pytest.mark.parametrize("begun", [False, True], ids=["new", "begun"])
def test_a_refused_command_leaves_the_run_directory_as_it_was(
    given: Path, scored: Path, tmp_path: Path, words: tuple[str, ...], begun: bool
) -> None:
    run_dir = scored if begun else tmp_path / "run"
    before = files_in(run_dir)
    assert bool(before) == begun
    command, *flags = (str(given.parent / "pool.parquet") if word == "POOL" else word for word in words)
    assert main([command, "--config", str(given), "--run_dir", str(run_dir), *flags]) == 2
    assert files_in(run_dir) == before


@pytest.fixture(scope="module")
def scored(given: Path, tmp_path_factory) -> Path:
    """A run directory with scores and a selection of the YAML's."""
    run_dir = tmp_path_factory.mktemp("begun") / "run"
    for stage in ("score", "select"):
        assert main([stage, "--config", str(given), "--run_dir", str(run_dir)]) == 0
    return run_dir


def test_a_later_command_keeps_what_was_given_before(given: Path, tmp_path: Path) -> None:
    words = ["--run_dir", str(tmp_path / "run")]
    assert main(["score", "--config", str(given), *words, "--scoring.part_size", "30"]) == 0
    assert main(["select", *words, "--selection.length_strata", "2"]) == 0
    assert main(["select", *words, "--selection.keep_count", "6"]) == 0
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert written["selection"] == {"keep_count": 6, "length_strata": 2}
    assert written["scoring"] == {"scorer": "length", "part_size": 30}
    # What nobody gave is not there: a later version's defaults are its own.
    assert "duplicates" not in written
    assert "strategy" not in written
    assert read_selection(tmp_path / "run").kept_count == 6


@pytest.mark.slow
def test_a_run_directory_is_run_again_from_its_own_file(given: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    flags = ["--selection.keep_count", "10", "--training.logging_steps", "1"]
    assert main(["run", "--config", str(given), "--run_dir", str(first), *flags]) == 0
    assert main(["run", "--config", str(first / "config.yaml"), "--run_dir", str(again)]) == 0
    assert ScoreTable.at(again).read().equals(ScoreTable.at(first).read())
    assert read_selection(again).table.equals(read_selection(first).table)
    assert read_selection(again).kept_count == 10
    for name in ("metrics.json", "predictions.jsonl"):
        assert (again / name).read_text().replace("again", "first") == (first / name).read_text()
    # In its own place nothing is scored again.
    written = {path: path.stat().st_mtime_ns for path in (first / "scores").iterdir()}
    assert main(["run", "--config", str(first / "config.yaml")]) == 0
    assert {path: path.stat().st_mtime_ns for path in (first / "scores").iterdir()} == written


def test_every_stage_can_be_asked() -> None:
    for name in STAGES:
        stage = find_stage(name)
        assert callable(stage.check)
        assert callable(stage.prepare)
    with pytest.raises(ConfigError, match="stage must be one of 'score', 'select', 'train', 'evaluate', 'push', got"):
        find_stage("scoring")
