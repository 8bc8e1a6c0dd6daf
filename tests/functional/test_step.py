"""The immutable step against torch's optimizers."""

from __future__ import annotations

import pytest
import torch

from ost_hf.functional.step import AdamState, UpdateRule

SHAPE = (7, 5)


def optimizer_of(rule: UpdateRule, parameter: torch.nn.Parameter) -> torch.optim.Optimizer:
    """The optimizer of torch in the same state."""
    if rule.name == "sgd":
        return torch.optim.SGD([parameter], lr=rule.learning_rate, weight_decay=rule.weight_decay)
    optimizer = torch.optim.AdamW(
        [parameter], lr=rule.learning_rate, betas=rule.betas, eps=rule.eps, weight_decay=rule.weight_decay
    )
    assert rule.state is not None
    optimizer.state[parameter] = {
        "step": torch.tensor(float(rule.state.step)),
        "exp_avg": rule.state.exp_avg["w"].clone(),
        "exp_avg_sq": rule.state.exp_avg_sq["w"].clone(),
    }
    return optimizer


def warm_state(dtype: torch.dtype, steps: int) -> AdamState:
    """The moments of an AdamW that really took ``steps`` steps."""
    parameter = torch.nn.Parameter(torch.randn(SHAPE, dtype=dtype))
    optimizer = torch.optim.AdamW([parameter], lr=1e-2)
    for _ in range(steps):
        parameter.grad = torch.randn(SHAPE, dtype=dtype)
        optimizer.step()
    kept = optimizer.state[parameter]
    return AdamState({"w": kept["exp_avg"].clone()}, {"w": kept["exp_avg_sq"].clone()}, steps)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("name", "steps"), [("sgd", 0), ("adamw", 1), ("adamw", 30)])
def test_step_is_that_of_torch_optim(
    name: str, steps: int, weight_decay: float, dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    state = warm_state(dtype, steps) if name == "adamw" else None
    rule = UpdateRule(name, 1e-2, weight_decay=weight_decay, state=state)
    parameter = torch.nn.Parameter(torch.randn(SHAPE, dtype=dtype))
    gradient = torch.randn(SHAPE, dtype=dtype)
    stepped = rule.step("w", parameter.detach().clone(), gradient)
    parameter.grad = gradient
    optimizer_of(rule, parameter).step()
    torch.testing.assert_close(stepped, parameter.detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_displacement_is_the_step_beyond_the_step_without_the_candidate(name: str) -> None:
    torch.manual_seed(1)
    rule = UpdateRule(name, 1e-2, weight_decay=0.1, state=warm_state(torch.float64, 5))
    parameter = torch.randn(SHAPE, dtype=torch.float64)
    gradients = torch.randn(3, *SHAPE, dtype=torch.float64)
    without = rule.step("w", parameter, torch.zeros_like(parameter))
    expected = torch.stack([rule.step("w", parameter, gradient) - without for gradient in gradients])
    torch.testing.assert_close(rule.displacement("w", gradients), expected, rtol=1e-9, atol=1e-12)


def test_step_changes_neither_state_nor_inputs() -> None:
    state = warm_state(torch.float64, 3)
    parameter, gradient = torch.randn(SHAPE, dtype=torch.float64), torch.randn(SHAPE, dtype=torch.float64)
    before = [tensor.clone() for tensor in (parameter, gradient, state.exp_avg["w"], state.exp_avg_sq["w"])]
    rule = UpdateRule("adamw", 1e-2, state=state)
    first = rule.step("w", parameter, gradient)
    torch.testing.assert_close(rule.step("w", parameter, gradient), first, rtol=0, atol=0)
    for old, new in zip(before, (parameter, gradient, state.exp_avg["w"], state.exp_avg_sq["w"]), strict=True):
        assert torch.equal(old, new)


def test_preconditioner_is_one_for_sgd_and_inverse_root_second_moment_for_adamw() -> None:
    state = warm_state(torch.float64, 4)
    parameter = torch.randn(SHAPE, dtype=torch.float64)
    assert torch.equal(UpdateRule("sgd", 1.0, state=state).preconditioner("w", parameter), torch.ones_like(parameter))
    corrected = state.exp_avg_sq["w"] / (1 - 0.999**4)
    adamw = UpdateRule("adamw", 1.0, state=state)
    torch.testing.assert_close(adamw.preconditioner("w", parameter), 1 / (corrected.sqrt() + 1e-8))


def test_cold_adamw_is_refused() -> None:
    with pytest.raises(ValueError, match="warm the proxy up, or use sgd"):
        UpdateRule("adamw", 1e-3)
    with pytest.raises(ValueError, match="must be one of sgd, adamw, got 'lion'"):
        UpdateRule("lion", 1e-3)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_linear_rate_is_the_derivative_of_the_displacement(name: str) -> None:
    torch.manual_seed(2)
    rule = UpdateRule(name, 1e-2, weight_decay=0.1, state=warm_state(torch.float64, 5))
    gradient = torch.randn(1, *SHAPE, dtype=torch.float64)
    parameter = torch.randn(SHAPE, dtype=torch.float64)
    slope = (rule.displacement("w", 1e-6 * gradient) - rule.displacement("w", -1e-6 * gradient)) / 2e-6
    torch.testing.assert_close(slope[0], -rule.linear_rate("w", parameter) * gradient[0], rtol=1e-7, atol=1e-12)
