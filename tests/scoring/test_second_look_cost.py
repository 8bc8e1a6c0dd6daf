"""What the doctor says of the second look's cost, against what a second look then does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ost_hf.cli.doctor import page
from ost_hf.data.encoding import EncodedDataset
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import Proxy
from ost_hf.scoring import clock, second_look
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.diagnosis import Diagnosis
from ost_hf.scoring.doctor import examine
from ost_hf.scoring.runner import score_pool
from ost_hf.scoring.second_look import FOLDS
from ost_hf.scoring.second_look_cost import planned_passes, planned_trainings
from ost_hf.scoring.second_look_proxy import training_steps

CONFIG = ScoringConfig(second_look=True, second_look_min_steps=2, second_look_batch_size=5, batch_size=8)


@pytest.fixture(autouse=True)
def _timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_LONG_ENOUGH", 0.0)


@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_plan_is_what_is_done_where_nothing_looks_corrupted(
    rounds: int,
    pool: EncodedDataset,
    anchors: EncodedDataset,
    vlm_path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Path] = []

    def counted(folder: Path, *more: Any) -> Any:
        asked.append(folder)
        return load(folder, *more)

    load = second_look.load_mature_proxy
    monkeypatch.setattr(second_look, "load_mature_proxy", counted)
    monkeypatch.setattr(second_look, "small_p", lambda anchors: -1.0)
    config = replace(CONFIG, second_look_rounds=rounds)
    proxy = ProxyConfig(vlm_path, warmup_min_steps=2, warmup_batch_size=4)
    table = score_pool(tmp_path, pool.rows, anchors.rows, proxy, config, pool.encoder.config)
    learnt_from = [n for done in table.manifest()["second_look"]["rounds"] for n in done["rows_trained_on"]]
    trainings, steps = planned_trainings(len(pool), config)
    assert len(learnt_from) == trainings
    # Halves are drawn, and one has a few rows more than the other.
    assert abs(sum(training_steps(rows, config) for rows in learnt_from) - steps) <= trainings
    assert len(asked) == len(FOLDS) * planned_passes(config)


def examined(proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, **changes: Any) -> Diagnosis:
    few = EncodedDataset(anchors.rows.select(range(3)), anchors.encoder)
    return examine(proxy, pool, few, replace(CONFIG, **changes), rows=4)


def test_doctor_says_what_it_would_take(warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset) -> None:
    diagnosis = examined(warm_proxy, pool, anchors)
    cost = diagnosis.second_look
    assert cost is not None
    # 20 of 30 rows of each half, then all: 4 and twice 6 steps of 5.
    assert (cost.trainings, cost.steps, cost.passes) == (6, 32, 4)
    assert cost.step_seconds is not None and cost.rows_per_second is not None and cost.seconds is not None
    assert cost.seconds == pytest.approx(32 * cost.step_seconds + 4 * (60 + 2 * 3) / cost.rows_per_second)
    text = " ".join(page(diagnosis).split())
    assert "6 trainings of all weights, at most 32 steps of 5 samples" in text
    assert "4 forward passes of the pool" in text
    assert examined(warm_proxy, pool, anchors, second_look=False).second_look is None


def test_second_look_that_does_not_fit_is_a_finding(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*args: Any, **more: Any) -> None:
        raise torch.OutOfMemoryError("no memory for 3 GiB\nmore lines")

    monkeypatch.setattr("ost_hf.scoring.second_look_cost.train", no_memory)
    diagnosis = examined(warm_proxy, pool, anchors)
    assert diagnosis.second_look is not None
    assert diagnosis.second_look.refused == "OutOfMemoryError: no memory for 3 GiB"
    text = " ".join(page(diagnosis).split())
    assert (
        "the second look was refused: OutOfMemoryError: no memory for 3 GiB. Set scoring.second_look_trainable" in text
    )
    assert "2nd look" not in text
