"""One vector for a row, from a forward pass that is made anyway."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.functional.loss import per_sample_loss
from ost_hf.functional.pooling import pooling, position_weighted_mean
from ost_hf.functional.reverse import per_sample_gradients
from ost_hf.proxy.model import Proxy
from ost_hf.scorers.inputs import ToDevice


def test_later_tokens_weigh_more_and_padding_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    found = position_weighted_mean(hidden, mask)
    first = sum((place + 1) * hidden[0, place] for place in range(4)) / 10
    second = (hidden[1, 0] + 2 * hidden[1, 1]) / 3
    assert torch.allclose(found, torch.stack([first, second]), atol=1e-12)
    assert position_weighted_mean(hidden.bfloat16(), mask).dtype == torch.float32


@pytest.mark.parametrize("way", ["loss", "gradients"])
def test_vectors_come_with_a_loss_and_change_nothing(way: str, warm_proxy: Proxy, pool: EncodedDataset) -> None:
    batch = ToDevice(warm_proxy.processing_class)([pool.encode(row) for row in range(5)])
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    model: Any = warm_proxy.model

    def losses() -> torch.Tensor:
        if way == "loss":
            return per_sample_loss(model, batch)
        return per_sample_gradients(model, warm_proxy.pairs, batch, lambda name, gradient: None)

    before = losses()
    with pooling(model, batch["attention_mask"]) as pooled:
        during = losses()
    assert torch.equal(before, during)
    hidden = model(**inputs, output_hidden_states=True, use_cache=False).hidden_states[-1]
    expected = position_weighted_mean(hidden, batch["attention_mask"])
    assert torch.allclose(pooled[-1], expected, atol=1e-5)
    assert not pooled[-1].requires_grad
    losses()
    assert len(pooled) == 1  # nothing listens any more
