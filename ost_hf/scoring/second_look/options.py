"""How the second look is taken."""

from __future__ import annotations

from dataclasses import dataclass, field

from ost_hf.errors import require_choice, require_integer, require_range


@dataclass(frozen=True)
class SecondLookOptions:
    """Fine-tune the proxy on what is found clean, and look at every row again with what it has learnt.

    The defaults were chosen on seeds of the handwritten arithmetic recipe that are not reported.
    """

    second_look: bool = field(
        default=False,
        metadata={
            "help": "after the one-step utilities: train two proxies, each on the best of one half of the pool, let "
            "each look at the other half, compare every row's loss there and utility with the anchors' (columns "
            "late_loss and corrupted_p), and do it again, twice by default, with what looks clean"
        },
    )
    second_look_trainable: str = field(
        default="all",
        metadata={
            "help": "`all` weights, float32 and 16 bytes each while training (mixed precision where the proxy is of "
            "bfloat16); or an `adapter` like the proxy's, for little memory: it learns less. Of either, the last of "
            "several rounds asks second_look_rounds - 1 whole models at once"
        },
    )
    second_look_share: float = field(
        default=0.65,
        metadata={"help": "share of its half of the pool, best first, that a proxy of the first round is trained on"},
    )
    second_look_rounds: int = field(
        default=3,
        metadata={
            "help": "so often two proxies are trained: first on what the one-step utilities rank highest, then on what "
            "the round before did not find corrupted; those of all rounds but the first are asked together"
        },
    )
    second_look_utility_weight: float = field(
        default=0.25,
        metadata={
            "help": "how much the one-step utility weighs in corrupted_p beside late_loss, both in standard deviations "
            "of the anchors'; 0: late_loss alone, as with another utility than mean_cosine"
        },
    )
    second_look_epochs: float = field(default=1.0, metadata={"help": "passes over the rows that a proxy is trained on"})
    second_look_min_steps: int = field(
        default=150, metadata={"help": "repeat those rows until so many steps are done: a small pool has few"}
    )
    second_look_batch_size: int = field(default=32, metadata={"help": "samples per step, over all processes"})
    second_look_learning_rate: float = field(
        default=2e-5, metadata={"help": "AdamW's peak rate; linear warm-up over a tenth of the steps, linear decay"}
    )

    def check_second_look(self) -> None:
        """Raises ``ConfigError`` for a value that is not allowed."""
        require_choice("scoring.second_look_trainable", self.second_look_trainable, ["all", "adapter"])
        require_range("scoring.second_look_share", self.second_look_share, above=0, at_most=1)
        require_integer("scoring.second_look_rounds", self.second_look_rounds, at_least=1)
        require_range("scoring.second_look_utility_weight", self.second_look_utility_weight, at_least=0, at_most=1)
        require_range("scoring.second_look_epochs", self.second_look_epochs, above=0)
        require_integer("scoring.second_look_min_steps", self.second_look_min_steps, at_least=1)
        require_integer("scoring.second_look_batch_size", self.second_look_batch_size, at_least=1)
        require_range("scoring.second_look_learning_rate", self.second_look_learning_rate, above=0)
