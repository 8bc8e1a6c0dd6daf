"""What the doctor says of a second look's cost; scoring/test_second_look.py holds the plan against what is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.doctor.diagnosis import Diagnosis
from ost_hf.doctor.examine import examine
from ost_hf.doctor.page import page
from ost_hf.doctor.readings import METHODS
from ost_hf.proxy.model import Proxy
from ost_hf.scoring import clock
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringJob
from ost_hf.strategy import STRATEGIES
from ost_hf.tables.score_table import ScoreTable

CONFIG = ScoringConfig(
    second_stage="second_look",
    sections={"second_look": {**STRATEGIES["thorough"]["scoring"]["second_look"], "min_steps": 2, "batch_size": 5}},
    batch_size=8,
)


@pytest.fixture(autouse=True)
def _timed_once_and_first_order_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here depends on the clock; and test_doctor.py measures every estimator."""
    monkeypatch.setattr(clock, "_LONG_ENOUGH", 0.0)
    monkeypatch.setattr("ost_hf.doctor.readings.METHODS", METHODS[:2])


def examined(proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset) -> Diagnosis:
    few = EncodedDataset(anchors.rows.select(range(3)), anchors.encoder)
    job = ScoringJob(pool, few, proxy.config, ScoreTable("none"), {}, CONFIG, Path("none"))
    return examine(proxy, job, rows=4)


@pytest.mark.slow
def test_doctor_says_what_it_would_take(warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset) -> None:
    diagnosis = examined(warm_proxy, pool, anchors)
    cost = diagnosis.second_stage
    assert cost is not None
    # 20 of 30 rows of each half, then all: 4 and twice 6 steps of 5.
    assert (cost.trainings, cost.steps, cost.passes) == (6, 32, 4)
    assert cost.step_seconds is not None and cost.rows_per_second is not None and cost.seconds is not None
    assert cost.seconds == pytest.approx(32 * cost.step_seconds + 4 * (60 + 2 * 3) / cost.rows_per_second)
    text = " ".join(page(diagnosis).split())
    assert "6 trainings of all weights, at most 32 steps of 5 samples" in text
    assert "4 forward passes of the pool" in text
    assert diagnosis.cost is not None
    # By hand, in passes of a row: 20 steps of 3 x 5; reverse 2; the anchors' gradients, then 2 + 2 x 4 of each.
    warm_up = 2 * warm_proxy.config.warmup_batch_size * 20
    assert diagnosis.cost["row_passes"] == warm_up + 2 * 60 + 32 * 3 * 5 + 4 * 60 + (2 + 2 + 2 * 4) * 3
    assert f"selection will cost about {diagnosis.cost['passes']:.1f} forward passes of the proxy over the pool" in text
    assert "then second_look: about" in text


@pytest.mark.slow
def test_second_look_that_does_not_fit_is_a_finding(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*args: Any, **more: Any) -> None:
        raise torch.OutOfMemoryError("no memory for 3 GiB\nmore lines")

    monkeypatch.setattr("ost_hf.scoring.second_look.cost.train", no_memory)
    diagnosis = examined(warm_proxy, pool, anchors)
    assert diagnosis.second_stage is not None
    assert diagnosis.second_stage.refused == "OutOfMemoryError: no memory for 3 GiB"
    text = " ".join(page(diagnosis).split())
    assert (
        "second_look was refused: OutOfMemoryError: no memory for 3 GiB. Set scoring.second_look.trainable to adapter"
        in text
    )
    assert "then second_look: about" not in text
