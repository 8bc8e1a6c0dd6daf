"""How candidates are scored."""

from __future__ import annotations

from dataclasses import dataclass, field

from ost_hf.errors import ConfigError, require_choice, require_range

# Chosen on development seeds of the handwritten arithmetic recipe and on the tests' proxy: the median |utility| of
# `exact` is thousands of times the change that other padding makes, and first order still ranks alike (Spearman
# 0.998 or more with either rule; at ten times these rates it fell to 0.92 with sgd and 0.90 with adamw).
_DEFAULT_LEARNING_RATE = {"sgd": 1e-4, "adamw": 1e-4}


@dataclass(frozen=True)
class ScorerConfig:
    """The scorer, and for one-step-train its estimator, utility and update rule."""

    scorer: str = field(default="one_step", metadata={"help": "`one_step` or `random`"})
    estimator: str = field(
        default="reverse",
        metadata={
            "help": "`reverse`: first order, one forward and backward for a batch; `exact`: simulate each step and "
            "evaluate every anchor (over 100 times the cost)"
        },
    )
    utility: str = field(
        default="mean_cosine",
        metadata={
            "help": "`mean_cosine`: mean over anchors of the cosine of preconditioned gradients, in [-1, 1]; `raw`: "
            "drop of the mean anchor loss in nats per token (the paper's)"
        },
    )
    update_rule: str = field(default="adamw", metadata={"help": "the simulated step: `adamw` or `sgd` (the paper's)"})
    learning_rate: float | None = field(
        default=None, metadata={"help": "of the simulated step; 1e-4 by default for either rule"}
    )
    batch_size: int = field(default=16, metadata={"help": "candidates scored at a time in each process"})
    anchor_batch_size: int = field(default=16, metadata={"help": "anchors evaluated at a time"})
    per_anchor: bool = field(
        default=False,
        metadata={"help": "keep a gradient per anchor (memory: anchors x adapter) to give utilities a standard error"},
    )
    seed: int = field(default=0, metadata={"help": "seed of the random scorer"})

    def __post_init__(self) -> None:
        require_choice("scoring.estimator", self.estimator, ["reverse", "exact"])
        require_choice("scoring.utility", self.utility, ["mean_cosine", "raw"])
        require_choice("scoring.update_rule", self.update_rule, ["adamw", "sgd"])
        require_range("scoring.learning_rate", self.learning_rate, above=0)
        require_range("scoring.batch_size", self.batch_size, at_least=1)
        require_range("scoring.anchor_batch_size", self.anchor_batch_size, at_least=1)
        if self.estimator == "exact" and self.utility != "raw" and self.scorer == "one_step":
            raise ConfigError(
                "scoring.estimator 'exact' measures a drop of the loss: it goes with utility 'raw'; "
                "mean_cosine needs estimator 'reverse'"
            )

    @property
    def step_size(self) -> float:
        """The learning rate of the simulated step."""
        return _DEFAULT_LEARNING_RATE[self.update_rule] if self.learning_rate is None else self.learning_rate
