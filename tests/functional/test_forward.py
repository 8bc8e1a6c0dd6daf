"""Slopes along a direction, without a backward pass."""

from __future__ import annotations

import pytest
import torch

from ost_hf.functional.exact import sample_gradient
from ost_hf.functional.forward import (
    CentralDifference,
    Direction,
    anchor_direction,
    choose_step,
    forward_mode,
)
from ost_hf.functional.step import UpdateRule


def slopes_by_autograd(case, direction: Direction) -> torch.Tensor:
    """``<w, g_i>``, one candidate after the other."""
    rows = [sample_gradient(case.model, case.parameters, candidate)[1] for candidate in case.candidates]
    return torch.stack([sum((row[name] * direction.values[name]).sum() for name in row) for row in rows])


@pytest.fixture(params=["sgd", "adamw"])
def rule(request: pytest.FixtureRequest, case) -> UpdateRule:
    return UpdateRule(request.param, 1e-3, state=case.adam)


def test_forward_mode_is_the_inner_product_with_the_gradient(case, rule: UpdateRule) -> None:
    direction = anchor_direction(case.model, case.pairs, case.anchors, rule)
    case.model.set_attn_implementation("eager")
    slope, loss = forward_mode(case.model, case.pairs, case.batch, direction)
    expected = slopes_by_autograd(case, direction)
    assert (slope - expected).abs().max() < 1e-6 * expected.std()
    losses = [sample_gradient(case.model, case.parameters, candidate)[0] for candidate in case.candidates]
    torch.testing.assert_close(loss, torch.stack(losses))


def test_central_difference_is_the_inner_product_with_the_gradient(case, rule: UpdateRule) -> None:
    direction = anchor_direction(case.model, case.pairs, case.anchors, rule)
    expected = slopes_by_autograd(case, direction)
    slope, _ = CentralDifference(case.model, case.pairs, direction, 1e-5)(case.batch)
    assert (slope - expected).abs().max() < 1e-6 * expected.std()


def test_error_of_the_central_difference_is_of_second_order(case) -> None:
    direction = anchor_direction(case.model, case.pairs, case.anchors, UpdateRule("sgd", 1e-3))
    expected = slopes_by_autograd(case, direction)
    errors = [
        (CentralDifference(case.model, case.pairs, direction, step)(case.batch)[0] - expected).norm()
        for step in (4e-3, 2e-3, 1e-3)
    ]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def test_direction_of_sgd_is_the_mean_anchor_gradient(case) -> None:
    direction = anchor_direction(case.model, case.pairs, case.anchors, UpdateRule("sgd", 1e-3))
    gradients = [sample_gradient(case.model, case.parameters, batch)[1] for batch in case.anchors]
    total = sum(torch.cat([gradient[name].flatten() for name in case.parameters]) for gradient in gradients)
    ours = torch.cat([direction.values[name].flatten() for name in case.parameters])
    torch.testing.assert_close(ours, 1e-3 * total / 12, rtol=1e-8, atol=1e-15)


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float64, 1e-3), (torch.float32, 1e-3)])
def test_chosen_step_is_checked_against_the_backward_pass(case, rule: UpdateRule, dtype, largest: float) -> None:
    case.model.to(dtype)
    anchors = [{k: v.to(dtype) if v.is_floating_point() else v for k, v in batch.items()} for batch in case.anchors]
    direction = anchor_direction(case.model, case.pairs, anchors, rule)
    chosen = choose_step(case.model, case.pairs, direction, anchors)
    assert chosen.error == min(chosen.errors.values())
    assert chosen.error < largest
    # Too long a step bends.
    assert chosen.errors[max(chosen.errors)] > 100 * chosen.error


def test_no_weight_is_touched(case) -> None:
    before = {name: tensor.clone() for name, tensor in case.model.state_dict().items()}
    direction = anchor_direction(case.model, case.pairs, case.anchors, UpdateRule("sgd", 1e-3))
    CentralDifference(case.model, case.pairs, direction, 1e-3)(case.batch)
    case.model.set_attn_implementation("eager")
    forward_mode(case.model, case.pairs, case.batch, direction)
    for name, tensor in case.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any("forward" in module.__dict__ for module in case.model.modules())
