"""How one-step utilities are estimated. Without PyTorch: ``--help`` reads this."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ost_hf.errors import ConfigError, require_choice, require_range
from ost_hf.functional.update_rules import UPDATE_RULES
from ost_hf.settings import remembers_given

UTILITIES = ("mean_cosine", "raw", "raw_per_sample", "per_gradient_norm", "relative")

# What estimators that see no gradient of a candidate can give. A step on a sum over tokens is another step.
_WITHOUT_GRADIENTS = {"forward": ("raw", "raw_per_sample", "relative"), "exact": ("raw", "relative")}

ESTIMATORS = ("reverse", "forward", "exact")


@remembers_given
@dataclass(frozen=True)
class OneStepOptions:
    """Estimator, utility and update rule."""

    estimator: str = field(
        default="reverse",
        metadata={
            "common": True,
            "short": "reverse, forward, exact (much slower)",
            "help": "`reverse`: first order, one forward and backward for a batch; `forward`: first order without a "
            "backward pass, for little memory; `exact`: simulate each step and evaluate every anchor (20 to 100 times "
            "the cost)",
        },
    )
    utility: str = field(
        default="mean_cosine",
        metadata={
            "common": True,
            "short": "mean_cosine, raw (the paper's), ...",
            "help": "`mean_cosine`: mean over anchors of the cosine of preconditioned gradients, in [-1, 1]; `raw`: "
            "drop of the mean anchor loss in nats per token (the paper's); `raw_per_sample`: that for a step on the "
            "sum over the row's tokens; `per_gradient_norm`: raw over the row's gradient norm; `relative`: raw over "
            "the row's loss",
        },
    )
    update_rule: str = field(
        default="adamw",
        metadata={"help": "the simulated step: `adamw`, `sgd` (the paper's), `lion`, or your own"},
    )
    learning_rate: float | None = field(
        default=None, metadata={"help": "of the simulated step; by default the rule's own (1e-4 for adamw and sgd)"}
    )
    derivative: str = field(
        default="auto",
        metadata={
            "help": "of the forward estimator: `central` difference of two forward passes, or `forward_mode` "
            "differentiation (2 to 3 times the cost; not every attention kernel has it); `auto`: central where its "
            "error on the anchors is below 1%%, else forward_mode where the model allows it"
        },
    )

    def __post_init__(self) -> None:
        section = "scoring.one_step"
        require_choice(f"{section}.estimator", self.estimator, ESTIMATORS)
        require_choice(f"{section}.utility", self.utility, UTILITIES)
        require_choice(f"{section}.derivative", self.derivative, ["auto", "central", "forward_mode"])
        require_range(f"{section}.learning_rate", self.learning_rate, above=0)
        rule = UPDATE_RULES.find(self.update_rule)
        if self.estimator == "forward" and not rule.has_linear_rate:
            raise ConfigError(
                f"{section}.estimator 'forward' makes the step linear, and update_rule {self.update_rule!r} has no "
                "rate for that: use estimator 'reverse' or 'exact'"
            )
        if self.estimator != "reverse" and self.utility not in _WITHOUT_GRADIENTS[self.estimator]:
            allowed = " or ".join(map(repr, _WITHOUT_GRADIENTS[self.estimator]))
            raise ConfigError(
                f"{section}.estimator {self.estimator!r} sees no candidate's gradient and goes with utility {allowed}; "
                f"{self.utility!r} needs estimator 'reverse'"
            )

    def check(self, config: Any) -> None:
        """Raises ``ConfigError`` for columns that the estimator cannot give."""
        if self.estimator == "forward" and (config.per_anchor or config.group_by):
            raise ConfigError(
                "scoring.one_step.estimator 'forward' follows one direction, the mean over all anchors; "
                "scoring.per_anchor and scoring.group_by need estimator 'reverse' or 'exact'"
            )
        for name in ("store", "sketch_size", "embedding_size"):
            if getattr(config, name) and self.estimator != "reverse":
                raise ConfigError(f"scoring.{name} goes with estimator 'reverse', not {self.estimator!r}")
