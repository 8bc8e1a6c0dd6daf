"""One optimizer step as a function: parameters and state go in, new parameters come out, nothing changes.

With learning rate eta and gradient g:

* SGD:    theta' = theta - eta (g + lambda theta)
* AdamW:  m' = b1 m + (1 - b1) g,  v' = b2 v + (1 - b2) g^2,  both divided by (1 - b^(t+1)),
          theta' = theta - eta lambda theta - eta m^ / (sqrt(v^) + eps)   (Loshchilov & Hutter, 1711.05101)

Weight decay follows ``torch.optim``: coupled for SGD, decoupled for AdamW. Every candidate steps from the
same state, which is never written back, so scores cannot depend on the order of the pool.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ost_hf.functional.lora import Tensors


@dataclass(frozen=True)
class AdamState:
    """Moments of a warm-up run: ``exp_avg`` m and ``exp_avg_sq`` v by parameter name, after ``step`` steps."""

    exp_avg: Tensors
    exp_avg_sq: Tensors
    step: int


@dataclass(frozen=True)
class UpdateRule:
    """An optimizer's single step.

    Args:
        name: ``sgd`` or ``adamw``.
        learning_rate: eta.
        betas: (b1, b2); AdamW only.
        eps: AdamW only.
        weight_decay: lambda.
        state: AdamW's moments; a cold second moment would make every step a sign step, so it is refused.

    Raises:
        ValueError: For an unknown name, or AdamW without moments of at least one step.
    """

    name: str
    learning_rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    state: AdamState | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.name not in _MOVES:
            raise ValueError(f"update rule must be one of {', '.join(_MOVES)}, got {self.name!r}")
        if self.name == "adamw" and (self.state is None or self.state.step < 1):
            raise ValueError("the adamw update rule needs the moments of a warm-up: warm the proxy up, or use sgd")

    def step(self, name: str, parameter: Tensor, gradient: Tensor) -> Tensor:
        """The parameter after one step on ``gradient``.

        Args:
            name: The parameter's name in the state.
            parameter: theta, any shape.
            gradient: Of the same shape.

        Returns:
            theta', of the gradient's shape.
        """
        return parameter - self.learning_rate * self.weight_decay * parameter + _MOVES[self.name](self, name, gradient)

    def displacement(self, name: str, gradient: Tensor) -> Tensor:
        """What the candidate itself moves: the step with ``gradient`` minus the step with a zero gradient.

        Momentum and weight decay move theta even without the candidate; that common move is no merit
        of the candidate's and is taken out (for plain SGD it is zero). It is formed without theta, whose
        digits would swamp a small move.

        Args:
            name: The parameter's name in the state.
            gradient: ``[B, *parameter shape]``, one gradient per sample.

        Returns:
            ``[B, *parameter shape]``.
        """
        move = _MOVES[self.name]
        return move(self, name, gradient) - move(self, name, torch.zeros_like(gradient[:1]))

    def linear_rate(self, name: str, parameter: Tensor) -> Tensor:
        """Gives c with ``displacement ~ -c g``: the step made linear in the gradient, its derivative at g = 0.

        For AdamW that holds the second moment, which the true step takes the candidate's squared gradient into:

            c = eta (1 - b1) / (1 - b1^(t+1)) / (sqrt(b2 v / (1 - b2^(t+1))) + eps)

        Args:
            name: The parameter's name in the state.
            parameter: For shape and type.

        Returns:
            c, of the parameter's shape.
        """
        if self.name == "sgd":
            return torch.full_like(parameter, self.learning_rate)
        assert self.state is not None
        beta1, beta2 = self.betas
        step = self.state.step + 1
        rate = self.learning_rate * (1 - beta1) / (1 - beta1**step)
        return rate / ((beta2 * self.state.exp_avg_sq[name] / (1 - beta2**step)).sqrt() + self.eps)

    def preconditioner(self, name: str, parameter: Tensor) -> Tensor:
        """P of this rule: 1 for SGD, ``1 / (sqrt(v^) + eps)`` for AdamW with the warm-up's second moment held."""
        if self.state is None or self.name == "sgd":
            return torch.ones_like(parameter)
        variance = self.state.exp_avg_sq[name] / (1 - self.betas[1] ** self.state.step)
        return 1 / (variance.sqrt() + self.eps)


def _sgd(rule: UpdateRule, name: str, gradient: Tensor) -> Tensor:
    return -rule.learning_rate * gradient


def _adamw(rule: UpdateRule, name: str, gradient: Tensor) -> Tensor:
    assert rule.state is not None
    beta1, beta2 = rule.betas
    step = rule.state.step + 1
    mean = beta1 * rule.state.exp_avg[name] + (1 - beta1) * gradient
    square = beta2 * rule.state.exp_avg_sq[name] + (1 - beta2) * gradient * gradient
    denominator = (square / (1 - beta2**step)).sqrt() + rule.eps
    return -rule.learning_rate * (mean / (1 - beta1**step)) / denominator


# What the gradient moves, weight decay aside: both rules decay theta by eta lambda theta.
_MOVES = {"sgd": _sgd, "adamw": _adamw}
