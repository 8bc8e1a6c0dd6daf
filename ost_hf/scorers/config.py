"""How candidates are scored."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from ost_hf.errors import ConfigError, require_choice, require_integer, require_range
from ost_hf.scorers.deita.options import DeitaOptions
from ost_hf.scorers.judge.options import JudgeOptions
from ost_hf.scorers.less.options import LessOptions

# Chosen on development seeds of the handwritten arithmetic recipe and on the tests' proxy: the median |utility| of
# `exact` is thousands of times the change that other padding makes, and first order still ranks alike (Spearman
# 0.998 or more with either rule; at ten times these rates it fell to 0.92 with sgd and 0.90 with adamw).
_DEFAULT_LEARNING_RATE = {"sgd": 1e-4, "adamw": 1e-4}

UTILITIES = ("mean_cosine", "raw", "raw_per_sample", "per_gradient_norm", "relative")

# What estimators that see no gradient of a candidate can give. A step on a sum over tokens is another step.
_WITHOUT_GRADIENTS = {
    "forward": ("raw", "raw_per_sample", "relative"),
    "exact": ("raw", "relative"),
    "cascade": ("raw",),
}

ESTIMATORS = ("reverse", "forward", "exact", "cascade")


# Settings of one-step utilities, and the other scorers of ours that read some of them.
_OF_ONE_STEP = (
    "estimator",
    "utility",
    "update_rule",
    "derivative",
    "learning_rate",
    "per_anchor",
    "group_by",
    "sketch_size",
)
ALSO_READ = {
    "rds": ("per_anchor", "group_by"),
    "less": ("group_by",),
    **dict.fromkeys(("random", "length", "perplexity", "ifd", "judge", "deita", "column"), ()),
}


@dataclass(frozen=True)
class ScorerConfig(DeitaOptions, JudgeOptions, LessOptions):
    """The scorer, and for one-step-train its estimator, utility and update rule."""

    scorer: str = field(
        default="one_step",
        metadata={
            "help": "`one_step`; without anchors: `random`, `length` (longest answer first), `perplexity` (lowest loss "
            "first), `ifd`, `judge` (a language model rates), `deita`, `column` (your own scores); with anchors: "
            "`rds`, `less`; see docs/baselines.md"
        },
    )
    estimator: str = field(
        default="reverse",
        metadata={
            "help": "`reverse`: first order, one forward and backward for a batch; `forward`: first order without a "
            "backward pass, for little memory; `exact`: simulate each step and evaluate every anchor (20 to 100 times "
            "the cost); `cascade`: reverse on all, exact near the cut-off and on a random sample"
        },
    )
    utility: str = field(
        default="mean_cosine",
        metadata={
            "help": "`mean_cosine`: mean over anchors of the cosine of preconditioned gradients, in [-1, 1]; `raw`: "
            "drop of the mean anchor loss in nats per token (the paper's); `raw_per_sample`: that for a step on the "
            "sum over the row's tokens; `per_gradient_norm`: raw over the row's gradient norm; `relative`: raw over "
            "the row's loss"
        },
    )
    update_rule: str = field(default="adamw", metadata={"help": "the simulated step: `adamw` or `sgd` (the paper's)"})
    learning_rate: float | None = field(
        default=None, metadata={"help": "of the simulated step; 1e-4 by default for either rule"}
    )
    derivative: str = field(
        default="auto",
        metadata={
            "help": "of the forward estimator: `central` difference of two forward passes, or `forward_mode` "
            "differentiation (2 to 3 times the cost; not every attention kernel has it); `auto`: central where its "
            "error on the anchors is below 1%%, else forward_mode where the model allows it"
        },
    )
    batch_tokens: int | None = field(
        default=None,
        metadata={
            "help": "tokens scored at a time in each process, padding included; by default 1024 on a CPU and 16384 on "
            "an accelerator; halved until a batch of the longest rows fits into memory"
        },
    )
    batch_size: int | None = field(
        default=None, metadata={"help": "rows scored at a time at most; by default as many as batch_tokens allows"}
    )
    per_anchor: bool = field(
        default=False,
        metadata={
            "help": "keep a gradient per anchor (memory: anchors x adapter): utilities get a standard error, and each "
            "row its utility for each anchor (list column `anchor_utilities`)"
        },
    )
    group_by: str | None = field(
        default=None,
        metadata={"help": "anchor column whose values are groups: each gets a utility column `group:VALUE` of its own"},
    )
    sketch_size: int = field(
        default=0,
        metadata={
            "help": "store a sketch of each preconditioned gradient in so many numbers (column `sketch`; 0: none)"
        },
    )
    column: str | None = field(
        default=None, metadata={"help": "of scorer `column`: the pool's column of numbers, higher is better"}
    )
    seed: int = field(default=0, metadata={"help": "seed of the random scorer, of sketches and of random samples"})

    def __post_init__(self) -> None:
        require_choice("scoring.estimator", self.estimator, ESTIMATORS)
        require_choice("scoring.utility", self.utility, UTILITIES)
        require_choice("scoring.update_rule", self.update_rule, ["adamw", "sgd"])
        require_choice("scoring.derivative", self.derivative, ["auto", "central", "forward_mode"])
        require_range("scoring.learning_rate", self.learning_rate, above=0)
        require_integer("scoring.batch_tokens", self.batch_tokens, at_least=1, optional=True)
        require_integer("scoring.batch_size", self.batch_size, at_least=1, optional=True)
        require_integer("scoring.sketch_size", self.sketch_size, at_least=0)
        self.check_less()
        self.check_judge(chosen=self.scorer == "judge")
        self.check_deita(chosen=self.scorer == "deita")
        if self.scorer == "one_step":
            self._check_estimator()

    def _check_estimator(self) -> None:
        if self.estimator != "reverse" and self.utility not in _WITHOUT_GRADIENTS[self.estimator]:
            allowed = " or ".join(map(repr, _WITHOUT_GRADIENTS[self.estimator]))
            raise ConfigError(
                f"scoring.estimator {self.estimator!r} sees no candidate's gradient and goes with utility {allowed}; "
                f"{self.utility!r} needs estimator 'reverse'"
            )
        if self.estimator == "forward" and (self.per_anchor or self.group_by):
            raise ConfigError(
                "scoring.estimator 'forward' follows one direction, the mean over all anchors; per_anchor and group_by "
                "need estimator 'reverse' or 'exact'"
            )
        if self.estimator == "cascade" and self.group_by:
            raise ConfigError(
                "scoring.estimator 'cascade' mixes first-order and exact utilities of the mean over all anchors; for "
                "group_by use 'reverse' or 'exact'"
            )
        if self.sketch_size and self.estimator != "reverse":
            raise ConfigError(
                f"scoring.sketch_size needs the candidates' gradients: estimator 'reverse', not {self.estimator!r}"
            )

    @property
    def idle(self) -> list[str]:
        """Settings that were changed and that the scorer does not read; nothing is known of a user's own scorer."""
        if self.scorer not in ALSO_READ:
            return []
        defaults = {item.name: item.default for item in fields(ScorerConfig)}
        unread = set(_OF_ONE_STEP) - set(ALSO_READ[self.scorer])
        return [f"scoring.{name}" for name in _OF_ONE_STEP if name in unread and getattr(self, name) != defaults[name]]

    @property
    def step_size(self) -> float:
        """The learning rate of the simulated step."""
        return _DEFAULT_LEARNING_RATE[self.update_rule] if self.learning_rate is None else self.learning_rate
