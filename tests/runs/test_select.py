"""``ost-hf select``: balanced, set-wise and aggregated, from a scored run directory."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml

from ost_hf.cli.main import main
from ost_hf.selection.kept import read_selection
from ost_hf.tables.score_table import ScoreTable


@pytest.fixture(scope="module")
def scored(tmp_path_factory, vlm_path, pool_dataset, anchor_dataset) -> Path:
    """A run directory with one-step scores: two groups of anchors, and sketches."""
    folder = tmp_path_factory.mktemp("select")
    source = ["large"] * 45 + ["small"] * 15
    pool_dataset.add_column("source", source).to_parquet(folder / "pool.parquet")
    anchor_dataset.add_column("topic", ["sums", "others"] * 6).to_parquet(folder / "anchors.parquet")
    given = {
        "run_dir": str(folder / "run"),
        "strategy": "one_step",
        "pool": {"path": str(folder / "pool.parquet")},
        "anchors": {"path": str(folder / "anchors.parquet")},
        "proxy": {"model": vlm_path, "warmup_min_steps": 3, "warmup_batch_size": 4},
        "scoring": {"group_by": "topic", "sketch_size": 16},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(given))
    assert main(["score", "--config", str(folder / "config.yaml")]) == 0
    return folder / "run"


@pytest.fixture
def run_dir(scored: Path, tmp_path: Path) -> Path:
    """A copy of the scored run directory, with a pool of the test's own."""
    shutil.copytree(scored, tmp_path / "run")
    pool = tmp_path / "pool.parquet"
    shutil.copy(scored.parent / "pool.parquet", pool)
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    config["pool"]["path"] = str(pool)
    config["run_dir"] = str(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "run"


def select(run_dir: Path, *words: str) -> int:
    return main(["select", "--run_dir", str(run_dir), "--selection.keep_count", "20", *words])


def kept_rows(run_dir: Path) -> list[int]:
    return np.flatnonzero(read_selection(run_dir).table["kept"].to_numpy()).tolist()


@pytest.mark.parametrize("order", ["top", "setwise"])
@pytest.mark.parametrize(("balance", "small"), [("proportional", 5), ("equal", 10)])
def test_a_balanced_selection_keeps_each_values_part(run_dir: Path, order: str, balance: str, small: int) -> None:
    words = ["--selection.balance_by", "source", "--selection.balance", balance, "--selection.order", order]
    assert select(run_dir, *words) == 0
    source = datasets.Dataset.from_parquet(str(run_dir.parent / "pool.parquet"))["source"]
    assert Counter(source[row] for row in kept_rows(run_dir)) == {"large": 20 - small, "small": small}


def test_setwise_goes_by_the_sketches_of_the_run_directory(run_dir: Path) -> None:
    assert select(run_dir, "--selection.order", "setwise") == 0
    selection = read_selection(run_dir)
    assert selection.kept_count == 20
    assert "each row by what it adds" in selection.explanation


def test_groups_of_anchors_are_aggregated(run_dir: Path) -> None:
    assert select(run_dir, "--selection.order", "top", "--selection.aggregate", "min") == 0
    scores = ScoreTable(run_dir / "scores").read()
    worst = np.minimum(scores["group:sums"].to_numpy(), scores["group:others"].to_numpy())
    assert kept_rows(run_dir) == sorted(np.argsort(-worst)[:20].tolist())


def test_a_missing_column_is_refused_with_those_there_are(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert select(run_dir, "--selection.balance_by", "sauce") == 2
    message = "ost-hf select: error: selection.balance_by: the pool has no column 'sauce'; there are: "
    error = capsys.readouterr().err
    assert message in error
    assert "source" in error.split(message)[1]
    assert not (run_dir / "selection.parquet").exists()


def test_a_pool_that_has_changed_since_scoring_is_refused(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(run_dir.parent / "pool.parquet")
    datasets.Dataset.from_parquet(path).select(range(1, 60)).to_parquet(path)
    assert select(run_dir, "--selection.balance_by", "source") == 2
    message = "ost-hf select: error: selection.balance_by: the pool has changed since it was scored; score it again"
    assert message in capsys.readouterr().err
    assert not (run_dir / "selection.parquet").exists()
