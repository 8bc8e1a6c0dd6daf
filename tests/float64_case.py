"""A warm proxy in float64 with candidates and anchors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from torch import Tensor

from ost_hf.data.collator import Collator
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.functional.lora import LoraPair
from ost_hf.functional.step import AdamState
from ost_hf.parallel import state
from ost_hf.proxy.model import Proxy

Batch = dict[str, Tensor]


@dataclass
class Case:
    """Everything the mathematics takes."""

    model: Any
    pairs: list[LoraPair]
    parameters: dict[str, Any]
    adam: AdamState
    candidates: list[Batch]
    batch: Batch
    anchors: list[Batch]


def float64_norms(model: Any) -> None:
    """Transformers' RMSNorm computes in float32 whatever it is given, which would drown small differences."""
    for module in model.modules():
        if type(module).__name__ == "Qwen3VLTextRMSNorm":
            module.__class__ = type("ExactRMSNorm", (type(module),), {"forward": _rms_norm})


def _rms_norm(self: Any, x: Tensor) -> Tensor:
    return self.weight * x * (x.square().mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()


@pytest.fixture
def case(warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset) -> Case:
    """Five candidates, as batches of one and as one batch; twelve anchors in three batches."""
    collate = Collator.of(warm_proxy.processing_class)

    def batch(dataset: EncodedDataset, rows: list[int]) -> Batch:
        batch = {key: value.to(state().device) for key, value in collate([dataset[row] for row in rows]).items()}
        return {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}

    model = warm_proxy.model.double()
    float64_norms(model)
    assert warm_proxy.adam is not None
    adam = AdamState(
        {name: value.double() for name, value in warm_proxy.adam.exp_avg.items()},
        {name: value.double() for name, value in warm_proxy.adam.exp_avg_sq.items()},
        warm_proxy.adam.step,
    )
    rows = [0, 7, 13, 21, 34]
    lengths = {len(pool[row]["input_ids"]) for row in rows}
    assert len(lengths) > 1, "the candidates should need padding"
    return Case(
        model,
        warm_proxy.pairs,
        warm_proxy.parameters,
        adam,
        [batch(pool, [row]) for row in rows],
        batch(pool, rows),
        [batch(anchors, [0, 1, 2, 3, 4]), batch(anchors, [5, 6, 7]), batch(anchors, [8, 9, 10, 11])],
    )
