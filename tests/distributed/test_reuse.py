"""A scored run, asked again by two processes."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import task

from ost_hf.cli.main import main
from ost_hf.tables.anchor_table import read_anchor_scores
from ost_hf.tables.score_table import ScoreTable


def test_two_processes_ask_a_run_again_as_one_does_and_end_one_that_was_killed(
    tmp_path: Path, vlm_path: str, pool_dataset: datasets.Dataset, anchor_dataset: datasets.Dataset, launch
) -> None:
    """New anchors and new rows at once, from a run of one process."""
    pool_dataset.select(range(40)).to_parquet(tmp_path / "pool.parquet")
    pool_dataset.to_parquet(tmp_path / "more.parquet")
    anchor_dataset.to_parquet(tmp_path / "anchors.parquet")
    task.as_dataset(task.clean_rows(9, "anchors", seed=7)).to_parquet(tmp_path / "new.parquet")
    given = {
        "pool.path": tmp_path / "pool.parquet",
        "anchors.path": tmp_path / "anchors.parquet",
        "proxy.model": vlm_path,
        "proxy.warmup_min_steps": 5,
        "proxy.warmup_batch_size": 6,
        "scoring.store": "true",
        "scoring.part_size": 7,
        "scoring.second_look.min_steps": 4,
        "scoring.second_look.epochs": 0.1,
        "scoring.second_look.batch_size": 6,
    }
    flags = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    assert main(["score", "--run_dir", str(tmp_path / "stored"), *flags]) == 0
    again = ["--reuse", str(tmp_path / "stored"), "--anchors.path", str(tmp_path / "new.parquet")]
    again += ["--pool.path", str(tmp_path / "more.parquet")]
    assert main(["score", "--run_dir", str(tmp_path / "one"), *again]) == 0
    one, two = (ScoreTable(tmp_path / name / "scores") for name in ("one", "two"))

    def same_as_one() -> None:
        launch("multi_gpu", "-m", "ost_hf.cli.main", "score", "--run_dir", str(tmp_path / "two"), *again)
        tables = [table.read() for table in (one, two)]
        assert tables[0]["example_id"] == tables[1]["example_id"]
        for column in ("utility", "late_loss"):
            values = [table[column].to_numpy() for table in tables]
            assert np.abs(values[0] - values[1]).max() < 1e-3 * values[0].std()
        losses = [read_anchor_scores(table)["loss"].to_numpy() for table in (one, two)]
        np.testing.assert_allclose(*losses, rtol=1e-4)
        noted = [table.manifest()["reuse"] for table in (one, two)]
        assert {name: noted[1][name] for name in ("rows_stored", "rows_scored")} == {
            "rows_stored": 40,
            "rows_scored": 20,
        }
        assert abs(noted[0]["agreement"]["spearman"] - noted[1]["agreement"]["spearman"]) < 0.01

    same_as_one()
    # Killed: parts of the first look, of the sample and of the last round were not written yet, and no whole table.
    folders = [two.folder / "first", two.folder / "agreement", two.folder / "second_look" / "round-2"]
    gone = [*two.folder.glob("part-*"), *(max(folder.glob("part-*")) for folder in folders)]
    for part in gone:
        part.unlink()
    same_as_one()
    assert all(part.exists() for part in gone)
