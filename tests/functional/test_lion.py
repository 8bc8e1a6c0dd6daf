"""Lion's step against the paper's algorithm in plain Python numbers."""

from __future__ import annotations

import math

import pytest
import torch
from moments import SHAPE, warm_state

from ost_hf.errors import ConfigError
from ost_hf.functional.forward import anchor_direction
from ost_hf.functional.step import AdamState, UpdateRule


def by_the_paper(
    theta: float, gradients: list[float], learning_rate: float, betas: tuple[float, float], weight_decay: float
) -> list[tuple[float, float]]:
    """Algorithm 2 of the paper for one coordinate: ``(theta, m)`` before the first step and after each."""
    beta1, beta2 = betas
    momentum = 0.0
    path = [(theta, momentum)]
    for gradient in gradients:
        mixed = beta1 * momentum + (1 - beta1) * gradient
        update = (mixed > 0) - (mixed < 0)
        theta = theta - learning_rate * (update + weight_decay * theta)
        momentum = beta2 * momentum + (1 - beta2) * gradient
        path.append((theta, momentum))
    return path


@pytest.mark.parametrize("steps", [1, 2, 30])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.95, 0.98)])
def test_step_is_the_papers_from_the_same_momentum(steps: int, weight_decay: float, betas: tuple[float, float]) -> None:
    torch.manual_seed(0)
    start = torch.randn(SHAPE, dtype=torch.float64)
    gradients = torch.randn(steps + 1, *SHAPE, dtype=torch.float64)
    gradients[:, 0, 0] = 0
    paths = [
        by_the_paper(theta, of_one.tolist(), 1e-2, betas, weight_decay)
        for theta, of_one in zip(start.flatten().tolist(), gradients.flatten(1).T, strict=True)
    ]
    before, after = (torch.tensor([path[time] for path in paths], dtype=torch.float64) for time in (-2, -1))
    momentum = before[:, 1].view(SHAPE)
    # Lion has no second moment: one that is not a number would show.
    state = AdamState({"w": momentum}, {"w": torch.full_like(momentum, math.nan)}, steps)
    rule = UpdateRule("lion", 1e-2, betas, weight_decay=weight_decay, state=state)
    stepped = rule.step("w", before[:, 0].view(SHAPE), gradients[-1])
    torch.testing.assert_close(stepped, after[:, 0].view(SHAPE), rtol=1e-14, atol=1e-14)


def test_candidate_moves_only_the_coordinates_whose_sign_it_turns() -> None:
    state = AdamState({"w": torch.tensor([1.0, 1.0, -1.0, 0.0, 0.0])}, {"w": torch.ones(5)}, 10)
    rule = UpdateRule("lion", 0.5, state=state)
    # Against b1 = 0.9 a gradient must be nine times the momentum, and of the other sign.
    gradient = torch.tensor([[-8.9, -9.1, 9.1, -0.1, 0.0]])
    assert rule.displacement("w", gradient).tolist() == [[0.0, 1.0, -1.0, 0.5, 0.0]]


def test_default_betas_are_lions_and_adamws_stay() -> None:
    state = warm_state(torch.float64, 3)
    assert UpdateRule("lion", 1e-3, state=state).betas == (0.9, 0.99)
    assert UpdateRule("adamw", 1e-3, state=state).betas == (0.9, 0.999)


def test_mean_step_over_the_momentums_noise_goes_along_the_preconditioned_gradient() -> None:
    scale = torch.tensor([[0.3], [1.0], [3.0]], dtype=torch.float64)
    quantiles = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    momentum = scale * torch.distributions.Normal(0.0, 1.0).icdf(quantiles)
    square = (scale**2).expand_as(momentum) * (1 - 0.999**20)
    rule = UpdateRule("lion", 1.0, state=AdamState({"w": momentum}, {"w": square}, 20))
    gradient = torch.tensor([[0.1], [-0.1], [0.2]], dtype=torch.float64).expand_as(momentum)
    mean = rule.displacement("w", gradient[None])[0].mean(1)
    along = -(rule.preconditioner("w", momentum) * gradient)[:, 0]
    torch.testing.assert_close(mean / mean.norm(), along / along.norm(), rtol=1e-2, atol=0)


def test_forward_refuses_lion_before_it_looks_at_an_anchor(case) -> None:
    rule = UpdateRule("lion", 1e-5, state=case.adam)
    with pytest.raises(
        ConfigError, match=r"no useful derivative: use scoring\.one_step\.estimator 'reverse' or 'exact'"
    ):
        anchor_direction(case.model, case.pairs, [{}], rule)
