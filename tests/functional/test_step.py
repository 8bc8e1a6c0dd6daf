"""The immutable step against torch's optimizers."""

from __future__ import annotations

import pytest
import torch
from moments import SHAPE, warm_state

from ost_hf.errors import ConfigError
from ost_hf.functional.step import AdamState, UpdateRule


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


def test_preconditioner_is_one_for_sgd_and_inverse_root_second_moment_for_adamw() -> None:
    state = warm_state(torch.float64, 4)
    parameter = torch.randn(SHAPE, dtype=torch.float64)
    assert torch.equal(UpdateRule("sgd", 1.0, state=state).preconditioner("w", parameter), torch.ones_like(parameter))
    corrected = state.exp_avg_sq["w"] / (1 - 0.999**4)
    adamw = UpdateRule("adamw", 1.0, state=state)
    torch.testing.assert_close(adamw.preconditioner("w", parameter), 1 / (corrected.sqrt() + 1e-8))


def test_cold_adamw_is_refused() -> None:
    with pytest.raises(ConfigError, match="warm the proxy up, or use sgd"):
        UpdateRule("adamw", 1e-3)
    with pytest.raises(ConfigError, match="adamw update rule needs the moments"):
        UpdateRule("adamw", 1e-3, state=AdamState({}, {}, 0))


def test_unknown_rule_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(
        ValueError, match=r"unknown update rule 'adam' \(did you mean 'adamw'\?\); there are: adamw, .*sgd"
    ):
        UpdateRule("adam", 1e-3)
