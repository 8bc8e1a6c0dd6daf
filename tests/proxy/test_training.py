"""The proxy's training loop."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.functional.loss import per_sample_loss
from ost_hf.proxy import training
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import build_proxy
from ost_hf.proxy.training import TrainingPlan, linear_schedule, shuffled_batches, train


def test_the_schedule_rises_and_falls() -> None:
    rates = linear_schedule(100, 1.0, rise=10)
    assert rates[9] == max(rates) == 1.0
    assert rates[0] == pytest.approx(0.1)
    assert 0 < rates[-1] < 0.02
    assert linear_schedule(1, 0.5, rise=0) == [0.5]


def test_batches_are_full_seeded_and_pass_over_all_rows() -> None:
    batches = shuffled_batches(range(10), size=4, steps=5, seed=1)
    assert [len(batch) for batch in batches] == [4] * 5
    drawn = [row for batch in batches for row in batch]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert batches == shuffled_batches(range(10), size=4, steps=5, seed=1)
    assert batches != shuffled_batches(range(10), size=4, steps=5, seed=2)


def test_a_step_that_does_not_fit_into_memory_is_done_again_in_smaller_parts(
    vlm_path: str, pool: EncodedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No device runs out of memory on demand: the error is raised where the loss is computed."""
    sizes: list[int] = []

    def limited(model: Any, inputs: Any) -> torch.Tensor:
        sizes.append(inputs["labels"].numel())
        if inputs["labels"].numel() > 130:
            raise torch.OutOfMemoryError("no room")
        return per_sample_loss(model, inputs)

    cold = build_proxy(ProxyConfig(vlm_path))
    results = []
    for loss in (per_sample_loss, limited):
        monkeypatch.setattr(training, "per_sample_loss", loss)
        proxy = copy.deepcopy(cold)
        batches = shuffled_batches(range(12), 6, 2, seed=0)
        losses = train(proxy.model, proxy.parameters.values(), pool, TrainingPlan(batches, [1e-3] * 2))[1]
        results.append((losses, torch.cat([p.flatten() for p in proxy.parameters.values()])))
    assert max(sizes) > 130
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    # A step moves a weight by 1e-3; gradients near zero round to either side.
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=5e-5)
