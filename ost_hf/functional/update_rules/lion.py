"""Lion (Chen et al. 2023, 2302.06675, algorithm 2), from the first moment m that a warm-up left.

    theta' = theta - eta (sign(b1 m + (1 - b1) g) + lambda theta)

Decoupled weight decay. m is never written back, so b2, by which Lion's momentum decays, is not read.

The warm-up is AdamW: its m decays by AdamW's b1 (0.9), Lion's own by b2 (0.99). Here m is the mean of about ten
gradients where Lion has a hundred, so it is noisier and larger, and a candidate turns fewer signs than it would in a
run of Lion's. Without moments every step would be sign(g), in which the size of a gradient does not count: they are
required.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ost_hf.errors import ConfigError
from ost_hf.functional.update_rules import RuleFunctions, update_rule

if TYPE_CHECKING:
    from ost_hf.functional.step import UpdateRule

# Of the AdamW that made the second moment; ``rule.betas`` are Lion's.
_WARM_UP_BETA2 = 0.999


@update_rule("lion")
class Lion(RuleFunctions):
    """A candidate's displacement is 2 eta where it turns the sign of the update, and 0 elsewhere.

    The default learning rate is a third of AdamW's, at the upper end of what the paper advises (a tenth to a third):
    at smaller ones float32 would drown more of ``exact``'s differences.
    """

    needs_moments = True
    default_learning_rate = 3e-5
    default_betas = (0.9, 0.99)
    has_linear_rate = False

    def move(self, rule: UpdateRule, name: str, gradient: Tensor) -> Tensor:
        """-eta sign(b1 m + (1 - b1) g)."""
        beta1, _ = rule.betas
        return -rule.learning_rate * (beta1 * rule.moments.exp_avg[name] + (1 - beta1) * gradient).sign()

    def linear_rate(self, rule: UpdateRule, name: str, parameter: Tensor) -> Tensor:
        """Refused: the derivative of a sign is zero wherever there is one."""
        raise ConfigError(
            "update rule 'lion' steps by a sign, which has no useful derivative: use scoring.one_step.estimator "
            "'reverse' or 'exact', which take the step as it is, or another update rule"
        )

    def preconditioner(self, rule: UpdateRule, name: str, parameter: Tensor) -> Tensor:
        """AdamW's, 1 / (sqrt(v^) + eps): that of Lion's mean step over the noise of the momentum.

        One step has no slope, but its mean has. If m is normal around zero with standard deviation s, then

            E sign(b1 m + (1 - b1) g) = erf((1 - b1) g / (sqrt(2) b1 s)),

        which is in proportion to g / s for small g. Where a gradient is mostly noise, sqrt(v^) is s up to a common
        factor. The alternatives are worse reasons: P = 1 lets coordinates with large gradients rule, which a sign
        does not, and 1 / |m| of a single m, which is zero by chance, is noise.
        """
        variance = rule.moments.exp_avg_sq[name] / (1 - _WARM_UP_BETA2**rule.moments.step)
        return 1 / (variance.sqrt() + rule.eps)
