"""AdamW (Loshchilov & Hutter, 1711.05101), from the moments m and v that a warm-up left after t steps.

    m' = b1 m + (1 - b1) g,  v' = b2 v + (1 - b2) g^2,  both divided by (1 - b^(t+1)),
    theta' = theta - eta lambda theta - eta m^ / (sqrt(v^) + eps)

Decoupled weight decay, as in ``torch.optim.AdamW``. A cold second moment would make every step a sign step, so the
moments are required.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ost_hf.functional.update_rules import RuleFunctions, update_rule

if TYPE_CHECKING:
    from ost_hf.functional.step import UpdateRule


@update_rule("adamw")
class AdamW(RuleFunctions):
    """The candidate's own squared gradient enters the step: its displacement is not linear in the gradient."""

    needs_moments = True
    default_learning_rate = 1e-4

    def move(self, rule: UpdateRule, name: str, gradient: Tensor) -> Tensor:
        """-eta m^ / (sqrt(v^) + eps), with the gradient in both moments."""
        beta1, beta2 = rule.betas
        step = rule.moments.step + 1
        mean = beta1 * rule.moments.exp_avg[name] + (1 - beta1) * gradient
        square = beta2 * rule.moments.exp_avg_sq[name] + (1 - beta2) * gradient * gradient
        denominator = (square / (1 - beta2**step)).sqrt() + rule.eps
        return -rule.learning_rate * (mean / (1 - beta1**step)) / denominator

    def linear_rate(self, rule: UpdateRule, name: str, parameter: Tensor) -> Tensor:
        """Holds the second moment, which the true step takes the candidate's squared gradient into.

        c = eta (1 - b1) / (1 - b1^(t+1)) / (sqrt(b2 v / (1 - b2^(t+1))) + eps)
        """
        beta1, beta2 = rule.betas
        step = rule.moments.step + 1
        rate = rule.learning_rate * (1 - beta1) / (1 - beta1**step)
        return rate / ((beta2 * rule.moments.exp_avg_sq[name] / (1 - beta2**step)).sqrt() + rule.eps)

    def preconditioner(self, rule: UpdateRule, name: str, parameter: Tensor) -> Tensor:
        """1 / (sqrt(v^) + eps), with the warm-up's second moment held."""
        variance = rule.moments.exp_avg_sq[name] / (1 - rule.betas[1] ** rule.moments.step)
        return 1 / (variance.sqrt() + rule.eps)
