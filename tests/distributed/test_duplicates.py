"""Each of several processes reads its share of the rows, and all find what one finds."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from ost_hf.data.config import DatasetConfig
from ost_hf.data.rows import Rows
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.runner import score_pool
from ost_hf.tables.score_table import ScoreTable


def test_two_processes_find_the_duplicates_of_one(
    tmp_path: Path, vlm_path: str, pool_dataset: datasets.Dataset, launch
) -> None:
    def brighter(record):
        return {"image": Image.fromarray(np.asarray(record["image"]) // 2 * 2 + 1)}

    parts = [pool_dataset.select(range(21)), pool_dataset.select(range(4)), pool_dataset.select(range(8)).map(brighter)]
    datasets.concatenate_datasets(parts).to_parquet(tmp_path / "pool.parquet")
    settings = {"within_pool": "drop", "near": True}
    arguments = {
        "pool.path": tmp_path / "pool.parquet",
        "proxy.model": vlm_path,
        "scoring.scorer": "random",
        **{f"duplicates.{name}": str(value).lower() for name, value in settings.items()},
        "run_dir": tmp_path / "two",
    }
    flags = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    launch("multi_gpu", "-m", "ost_hf.cli.main", "score", *flags)
    pool = Rows.load(DatasetConfig(path=str(tmp_path / "pool.parquet")))
    request = ScoringRequest(
        tmp_path / "one", pool, None, ProxyConfig(vlm_path), ScoringConfig("random"),
        duplicates=DuplicatesConfig(**settings),
    )  # fmt: skip
    one = score_pool(request).read()
    two = ScoreTable(tmp_path / "two" / "scores").read()
    for column in ("example_id", "status", "detail"):
        assert two[column].to_pylist() == one[column].to_pylist()
    # Four exact copies and eight near ones stand beside the rows kept in their place.
    assert one["status"].to_pylist().count("duplicate") == 12
    reports = [json.loads((tmp_path / run / "duplicates.json").read_text()) for run in ("one", "two")]
    assert reports[0] == reports[1]
    assert (reports[0]["pool"]["groups"], reports[0]["near_pairs"]) == (8, {"pool": 8})
