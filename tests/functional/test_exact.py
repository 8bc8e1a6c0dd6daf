"""The exact utility against a loop that a newcomer would write with torch.optim."""

from __future__ import annotations

import copy

import pytest
import torch

from ost_hf.functional.exact import anchor_losses, exact_utilities
from ost_hf.functional.loss import per_sample_loss
from ost_hf.functional.step import UpdateRule


def by_hand(case, rule: UpdateRule, candidate) -> torch.Tensor:
    """Anchor losses after one real optimizer step; ``None`` steps with a zero gradient."""
    model = copy.deepcopy(case.model)
    # PEFT puts the adapter's name into a parameter's.
    named = {name.replace(".default.", "."): parameter for name, parameter in model.named_parameters()}
    parameters = [named[name].requires_grad_(True) for name in case.parameters]
    if rule.name == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, lr=rule.learning_rate)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=rule.learning_rate, weight_decay=rule.weight_decay)
        for name in case.parameters:
            optimizer.state[named[name]] = {
                "step": torch.tensor(float(rule.state.step)),
                "exp_avg": rule.state.exp_avg[name].clone(),
                "exp_avg_sq": rule.state.exp_avg_sq[name].clone(),
            }
    if candidate is None:
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
    else:
        per_sample_loss(model, candidate).mean().backward()
    optimizer.step()
    return anchor_losses(model, case.anchors)


@pytest.mark.parametrize(("name", "weight_decay"), [("sgd", 0.0), ("adamw", 0.0), ("adamw", 0.1)])
def test_exact_is_the_hand_written_loop(case, name: str, weight_decay: float) -> None:
    rule = UpdateRule(name, 1e-3, weight_decay=weight_decay, state=case.adam)
    candidates = case.candidates[:3]
    ours = list(exact_utilities(case.model, case.parameters, candidates, case.anchors, rule))
    without = by_hand(case, rule, None)
    for (utility_V, loss), candidate in zip(ours, candidates, strict=True):
        torch.testing.assert_close(utility_V, without - by_hand(case, rule, candidate), rtol=1e-7, atol=1e-12)
        with torch.no_grad():
            torch.testing.assert_close(loss, per_sample_loss(case.model, candidate)[0])


def test_without_momentum_the_baseline_is_the_unstepped_model(case) -> None:
    rule = UpdateRule("sgd", 1e-3)
    before = anchor_losses(case.model, case.anchors)
    utility_V, _ = next(exact_utilities(case.model, case.parameters, case.candidates[:1], case.anchors, rule))
    torch.testing.assert_close(utility_V, before - by_hand(case, rule, case.candidates[0]), rtol=1e-7, atol=1e-12)


def test_model_is_restored_bit_for_bit(case) -> None:
    before = {name: tensor.clone() for name, tensor in case.model.state_dict().items()}
    rule = UpdateRule("adamw", 1e-2, state=case.adam)
    list(exact_utilities(case.model, case.parameters, case.candidates[:2], case.anchors, rule))
    steps = exact_utilities(case.model, case.parameters, [case.candidates[0], {}], case.anchors, rule)
    next(steps)
    with pytest.raises(KeyError):
        next(steps)
    for name, tensor in case.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(not parameter.requires_grad and parameter.grad is None for parameter in case.parameters.values())


def test_exact_does_not_depend_on_order(case) -> None:
    rule = UpdateRule("adamw", 1e-3, state=case.adam)
    forward = list(exact_utilities(case.model, case.parameters, case.candidates[:3], case.anchors, rule))
    backward = list(exact_utilities(case.model, case.parameters, case.candidates[2::-1], case.anchors, rule))
    for (one, _), (other, _) in zip(forward, backward[::-1], strict=True):
        assert torch.equal(one, other)
