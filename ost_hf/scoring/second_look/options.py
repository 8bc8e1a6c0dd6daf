"""How the second look is taken."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace

from ost_hf.errors import ConfigError, require_choice, require_integer, require_range
from ost_hf.scoring.config import DEFAULT_SCORER, ScoringConfig
from ost_hf.settings import Section, remembers_given

# Rows that a proxy has seen more often than this on average look so much cleaner than anchors that p-values hide
# corruption. Chosen on development seeds.
_OFTEN = 2


@remembers_given
@dataclass(frozen=True)
class SecondLookOptions:
    """Fine-tune the proxy on what is found clean, and look at every row again with what it has learnt.

    The defaults are the look of strategy ``auto``; strategy ``thorough`` sets others. Both were chosen on seeds of the
    handwritten arithmetic recipe that are not reported.
    """

    trainable: str = field(
        default="all",
        metadata={
            "common": True,
            "short": "all weights, or an adapter for little memory",
            "help": "`all` weights, float32 and 16 bytes each while training (mixed precision where the proxy is of "
            "bfloat16); or an `adapter` like the proxy's, for little memory: it learns less. Of either, the last of "
            "several rounds asks rounds - 1 whole models at once",
        },
    )
    cross_fit: bool | None = field(
        default=None,
        metadata={
            "common": True,
            "short": "two proxies, none judges its own rows (small pools)",
            "help": "true: train two proxies, each on one half of the pool, and ask each about the other half; false: "
            "train one proxy and ask it about all rows: those that it has learnt from look cleaner than they are, the "
            "more the more often it saw them; null: two where max_steps let one proxy see every row more than twice",
        },
    )
    learn_from: str = field(
        default="not_corrupted",
        metadata={
            "help": "what a proxy of the first round is trained on: rows that the first look's utility and loss do not "
            "set apart from the anchors (`not_corrupted`; where anchors have no utilities of their own, its loss "
            "alone), or the `share` of its rows with the `highest_utility`"
        },
    )
    first_utility_weight: float = field(
        default=0.5,
        metadata={
            "help": "with learn_from not_corrupted: how much the one-step utility weighs beside the first look's loss, "
            "as utility_weight does beside the late loss"
        },
    )
    share: float = field(default=0.65, metadata={"help": "with learn_from highest_utility: of how many of its rows"})
    rounds: int = field(
        default=2,
        metadata={
            "common": True,
            "short": "how often proxies are trained",
            "help": "so often proxies are trained: first on what the first look leaves, then on what the round before "
            "did not find corrupted; those of all rounds but the first are asked together",
        },
    )
    utility_weight: float = field(
        default=0.25,
        metadata={
            "help": "how much the one-step utility weighs in corrupted_p beside late_loss, both in standard deviations "
            "of the anchors'; 0: late_loss alone, as with another utility than mean_cosine"
        },
    )
    epochs: float = field(default=1.0, metadata={"help": "passes over the rows that a proxy is trained on"})
    min_steps: int = field(
        default=150, metadata={"help": "repeat those rows until so many steps are done: a small pool has few"}
    )
    max_steps: int | None = field(
        default=130,
        metadata={
            "help": "the trainings of a round take never more steps than that together, on a random part of those "
            "rows, so that their price does not grow with the pool; null: as many as epochs and min_steps say",
        },
    )
    batch_size: int = field(default=32, metadata={"help": "samples per step, over all processes"})
    learning_rate: float = field(
        default=2e-5,
        metadata={
            "common": True,
            "short": "AdamW's peak rate for those proxies",
            "help": "AdamW's peak rate; linear warm-up over a tenth of the steps, linear decay",
        },
    )

    def __post_init__(self) -> None:
        section = "scoring.second_look"
        require_choice(f"{section}.trainable", self.trainable, ["all", "adapter"])
        require_choice(f"{section}.learn_from", self.learn_from, ["not_corrupted", "highest_utility"])
        require_range(f"{section}.first_utility_weight", self.first_utility_weight, at_least=0, at_most=1)
        require_range(f"{section}.share", self.share, above=0, at_most=1)
        require_integer(f"{section}.rounds", self.rounds, at_least=1)
        require_range(f"{section}.utility_weight", self.utility_weight, at_least=0, at_most=1)
        require_range(f"{section}.epochs", self.epochs, above=0)
        require_integer(f"{section}.min_steps", self.min_steps, at_least=1)
        require_integer(f"{section}.max_steps", self.max_steps, at_least=1, optional=True)
        require_integer(f"{section}.batch_size", self.batch_size, at_least=1)
        require_range(f"{section}.learning_rate", self.learning_rate, above=0)

    def check(self, config: ScoringConfig) -> None:
        """Raises ``ConfigError`` where the first look gives no one-step utilities."""
        if config.scorer != DEFAULT_SCORER:
            raise ConfigError(
                f"scoring.second_stage second_look follows a look at one-step utilities: it goes with scorer "
                f"{DEFAULT_SCORER!r}, not with {config.scorer!r}; set scoring.second_stage to null"
            )

    def of_pool(self, rows: int) -> SecondLookOptions:
        """The same with ``cross_fit`` settled for a pool of so many rows."""
        if self.cross_fit is not None:
            return self
        seen = math.inf if self.max_steps is None else self.max_steps * self.batch_size / max(1, rows)
        return replace(self, cross_fit=seen > _OFTEN)

    @property
    def folds(self) -> range:
        """The parts of the pool that have a proxy each: two halves, or the whole; settled for a pool."""
        assert self.cross_fit is not None, "of_pool settles it"
        return range(2 if self.cross_fit else 1)

    def identity(self) -> Section:
        """The fields, and how a late loss is computed: tables of before it was so hold mean losses in that column."""
        return {**asdict(self), "late_loss": "root mean square, mixture"}
