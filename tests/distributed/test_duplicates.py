"""Each of several processes reads its share of the rows, and all find what one finds."""

from __future__ import annotations

import json
import random
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


def test_two_processes_keep_the_copies_that_can_be_scored(tmp_path: Path, vlm_path: str, launch) -> None:
    """Of each pair one row is too long, and stands first or second by its id."""
    generator = random.Random(0)
    texts = [" ".join(generator.choices(["red", "green", "blue", "grey", "pink"], k=60)) for _ in range(7)]
    records = [
        {"question": "Which?", "answer": text + "!" * (place % 2 * 90), "image": None}
        for text in texts
        for place in (0, 1)
    ]
    datasets.Dataset.from_list(records).to_parquet(tmp_path / "pool.parquet")
    arguments = {
        "pool.path": tmp_path / "pool.parquet",
        "proxy.model": vlm_path,
        "scoring.scorer": "random",
        "encoding.max_length": 340,
        "duplicates.within_pool": "drop",
        "duplicates.near": "true",
        "run_dir": tmp_path / "two",
    }
    flags = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    launch("multi_gpu", "-m", "ost_hf.cli.main", "score", *flags)
    two = ScoreTable(tmp_path / "two" / "scores").read()
    assert two["status"].to_pylist() == ["ok", "duplicate"] * 7
    kept = two["example_id"].to_pylist()[::2]
    assert two["detail"].to_pylist()[1::2] == [f"near duplicate of {name}" for name in kept]
