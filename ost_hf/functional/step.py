"""One optimizer step as a function: parameters and state go in, new parameters come out, nothing changes.

    theta' = theta - eta lambda theta + move(g)

with learning rate eta, weight decay lambda and gradient g. What the gradient moves is the rule's: a file each in
:mod:`ost_hf.functional.update_rules`. Every candidate steps from the same state, which is never written back, so
scores cannot depend on the order of the pool.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ost_hf.errors import ConfigError
from ost_hf.functional.lora import Tensors
from ost_hf.functional.update_rules import UPDATE_RULES, RuleFunctions


@dataclass(frozen=True)
class AdamState:
    """Moments of a warm-up run: ``exp_avg`` m and ``exp_avg_sq`` v by parameter name, after ``step`` steps."""

    exp_avg: Tensors
    exp_avg_sq: Tensors
    step: int


@dataclass(frozen=True)
class UpdateRule:
    """An optimizer's single step: a registered rule with its settings and the moments that it steps from.

    Args:
        name: A name in ``UPDATE_RULES``.
        learning_rate: eta.
        betas: (b1, b2) of a rule that has them; the rule's own by default.
        eps: Of a rule that divides by a root mean square.
        weight_decay: lambda.
        state: The moments of the warm-up.

    Raises:
        ConfigError: For an unknown name, or if the rule needs moments and there are none of at least one step.
    """

    name: str
    learning_rate: float
    betas: tuple[float, float] = None  # type: ignore[assignment]  # the rule's own are filled in
    eps: float = 1e-8
    weight_decay: float = 0.0
    state: AdamState | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        functions = self._functions
        if self.betas is None:
            object.__setattr__(self, "betas", functions.default_betas)
        if functions.needs_moments and (self.state is None or self.state.step < 1):
            others = [name for name in UPDATE_RULES.names() if not UPDATE_RULES.find(name).needs_moments]
            raise ConfigError(
                f"the {self.name} update rule needs the moments of a warm-up: warm the proxy up, or use "
                f"{' or '.join(others)}"
            )

    @property
    def moments(self) -> AdamState:
        """The state, for rules that need it."""
        assert self.state is not None, "the rule does not say that it needs moments"
        return self.state

    def step(self, name: str, parameter: Tensor, gradient: Tensor) -> Tensor:
        """The parameter after one step on ``gradient``.

        Args:
            name: The parameter's name in the state.
            parameter: theta, any shape.
            gradient: Of the same shape, or ``[B, *parameter shape]``.

        Returns:
            theta', of the gradient's shape.
        """
        move = self._functions.move(self, name, gradient)
        return parameter - self.learning_rate * self.weight_decay * parameter + move

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
        move = self._functions.move
        return move(self, name, gradient) - move(self, name, torch.zeros_like(gradient[:1]))

    def linear_rate(self, name: str, parameter: Tensor) -> Tensor:
        """Gives c with ``displacement ~ -c g``: the step made linear in the gradient, its derivative at g = 0.

        Args:
            name: The parameter's name in the state.
            parameter: For shape and type.

        Returns:
            c, of the parameter's shape.

        Raises:
            ConfigError: If the rule's step has no derivative (``has_linear_rate`` is false).
        """
        return self._functions.linear_rate(self, name, parameter)

    def preconditioner(self, name: str, parameter: Tensor) -> Tensor:
        """P of this rule, of the parameter's shape: the metric in which gradients are compared."""
        return self._functions.preconditioner(self, name, parameter)

    @property
    def _functions(self) -> RuleFunctions:
        return UPDATE_RULES.find(self.name)
