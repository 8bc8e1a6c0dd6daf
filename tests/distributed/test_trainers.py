"""Two processes of one training score the pool together when it begins, and leave out the same rows of its test set."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from ost_hf.tables.score_table import ScoreTable

WORKER = str(Path(__file__).with_name("trainers_worker.py"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pool, anchors, and a test set of which one row has no answer."""

    def rows(mark: str, answers: list[str]) -> datasets.Dataset:
        return datasets.Dataset.from_list(
            [{"prompt": f"{mark} {n} ", "completion": answer} for n, answer in enumerate(answers)]
        )

    rows("pool", [f"answer {n}" for n in range(24)]).save_to_disk(tmp_path / "pool")
    rows("anchor", [f"answer {n}" for n in range(6)]).save_to_disk(tmp_path / "anchors")
    rows("test", ["one", "", "three", "four"]).save_to_disk(tmp_path / "test")
    return tmp_path


@pytest.mark.parametrize("kind", ["ost", "sft"])
@pytest.mark.parametrize("config", ["multi_gpu", "deepspeed_zero3"])
def test_processes_score_together_and_see_the_same_rows(
    kind: str, config: str, folder: Path, text_path: str, launch
) -> None:
    launch(config, WORKER, str(folder), text_path, kind)
    one, other = json.loads((folder / f"{kind}.json").read_text())
    assert one == other
    assert len(one["kept"]) == 8
    assert one["train"] == (24 if kind == "ost" else 8)
    assert one["eval"] == 3
    assert len(one["eval_losses"]) == 2 and min(one["eval_losses"]) > 0
    assert ScoreTable(folder / kind / "ost" / "scores").read()["status"].to_pylist() == ["ok"] * 24
