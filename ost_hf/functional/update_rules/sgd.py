"""Plain gradient descent, as the paper steps.

    theta' = theta - eta (g + lambda theta)

Coupled weight decay, as in ``torch.optim.SGD``: without momentum it is the decoupled one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ost_hf.functional.update_rules import RuleFunctions, update_rule

if TYPE_CHECKING:
    from ost_hf.functional.step import UpdateRule


@update_rule("sgd")
class Sgd(RuleFunctions):
    """The step is linear in the gradient already, and all coordinates count alike: P = 1."""

    needs_moments = False
    default_learning_rate = 1e-4

    def move(self, rule: UpdateRule, name: str, gradient: Tensor) -> Tensor:
        """-eta g."""
        return -rule.learning_rate * gradient

    def linear_rate(self, rule: UpdateRule, name: str, parameter: Tensor) -> Tensor:
        """Eta everywhere."""
        return torch.full_like(parameter, rule.learning_rate)

    def preconditioner(self, rule: UpdateRule, name: str, parameter: Tensor) -> Tensor:
        """One everywhere."""
        return torch.ones_like(parameter)
