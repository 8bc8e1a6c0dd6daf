"""LESS trains its checkpoints with two processes as with one, and finds them again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ost_hf.data.rows import Rows
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.runner import score_pool
from ost_hf.tables.score_table import ScoreTable


def test_two_processes_give_the_table_of_one(
    tmp_path: Path, vlm_path: str, pool_dataset, anchor_dataset, launch
) -> None:
    pool_dataset.to_parquet(tmp_path / "pool.parquet")
    anchor_dataset.to_parquet(tmp_path / "anchors.parquet")
    arguments = {
        "pool.path": tmp_path / "pool.parquet",
        "anchors.path": tmp_path / "anchors.parquet",
        "proxy.model": vlm_path,
        "proxy.warmup_min_steps": 6,
        "proxy.warmup_batch_size": 5,
        "scoring.scorer": "less",
        "scoring.less.checkpoints": 2,
        "scoring.less.projection": 512,
        "run_dir": tmp_path / "two",
    }
    flags = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    launch("multi_gpu", "-m", "ost_hf.cli.main", "score", *flags)
    proxy = ProxyConfig(vlm_path, warmup_min_steps=6, warmup_batch_size=5)
    scoring = ScoringConfig("less", sections={"less": {"checkpoints": 2, "projection": 512}})
    request = ScoringRequest(tmp_path / "one", Rows(pool_dataset), Rows(anchor_dataset), proxy, scoring)
    one = score_pool(request).read()

    def same_as_one() -> None:
        two = ScoreTable(tmp_path / "two" / "scores").read()
        assert two["example_id"].to_pylist() == one["example_id"].to_pylist()
        utilities = [np.array(table["utility"].to_pylist()) for table in (one, two)]
        # Sums of gradients in another order: float32, carried through Adam's steps.
        assert np.abs(utilities[0] - utilities[1]).max() < 1e-3 * utilities[0].std()

    same_as_one()
    # Killed before all rows were scored: the checkpoints are read again, and not written.
    scores = tmp_path / "two" / "scores"
    for part in sorted(scores.glob("part-*"))[1:]:
        part.unlink()
    before = {file: file.stat().st_mtime_ns for file in (scores / "scorer").iterdir()}
    launch("multi_gpu", "-m", "ost_hf.cli.main", "score", *flags)
    same_as_one()
    assert {file: file.stat().st_mtime_ns for file in (scores / "scorer").iterdir()} == before
