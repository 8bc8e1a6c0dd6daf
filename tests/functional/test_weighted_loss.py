"""The weighted loss is that of a loop over rows and tokens."""

from __future__ import annotations

import pytest
import torch

from ost_hf.functional.loss import weighted_loss


@pytest.mark.parametrize("seed", range(3))
def test_sum_is_that_of_a_loop_and_its_gradient_too(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 9, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 7, (4, 9), generator=generator)
    labels[torch.rand(4, 9, generator=generator) < 0.4] = -100
    weights = torch.tensor([1.0, 0.0, 0.3, 0.7], dtype=torch.float64)
    slow = torch.zeros((), dtype=torch.float64)
    for row in range(4):
        for place in range(1, 9):
            if labels[row, place] != -100:
                slow = slow - weights[row] * logits[row, place - 1].log_softmax(0)[labels[row, place]]
    (expected,) = torch.autograd.grad(slow / 11, logits, retain_graph=True)
    loss = weighted_loss(logits, labels, weights, 11)
    (found,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(slow.item() / 11, abs=1e-12)
    assert torch.allclose(found, expected, atol=1e-12)
    assert not found[1].any()


def test_batch_without_labels_has_loss_zero() -> None:
    logits = torch.randn(2, 3, 5, requires_grad=True)
    loss = weighted_loss(logits, torch.full((2, 3), -100), torch.ones(2), 0)
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()
