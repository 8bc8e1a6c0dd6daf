"""``OSTConfig``: ``TrainingArguments`` and what is kept of the pool."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import transformers

from ost_hf.errors import ConfigError, require_choice, require_known
from ost_hf.selection.config import SelectionConfig
from ost_hf.training.sampler import SAMPLING_ORDERS


@dataclass
class SelectionArguments:
    """Fields that go in front of any ``TrainingArguments``."""

    keep_ratio: float | None = field(
        default=None, metadata={"help": "Share of the pool to keep, in (0, 1]; 0.5 if nothing else is set."}
    )
    keep_count: int | None = field(default=None, metadata={"help": "Number of rows to keep."})
    min_utility: float | None = field(default=None, metadata={"help": "Keep only rows of at least this utility."})

    def __post_init__(self) -> None:
        self.selection_config()
        # The next class in line is TrainingArguments, which does most of its work here.
        super().__post_init__()  # type: ignore[misc]

    def selection_config(self) -> SelectionConfig:
        """The selection that these fields ask for."""
        return SelectionConfig(self.keep_ratio, self.keep_count, self.min_utility)


@dataclass
class OSTConfig(SelectionArguments, transformers.TrainingArguments):
    """``TrainingArguments`` with the selection's settings."""

    sampling: str = field(
        default="shuffled",
        metadata={
            "help": "Order of the kept rows: `shuffled`; `ranked`, by the selection's rank, best first, the same in "
            "every epoch; `weighted`, drawn with replacement, more often the higher the utility: by the selection's "
            "utility, whatever strategy ranked them."
        },
    )
    check_rows: bool = field(
        default=True,
        metadata={
            "help": "Encode every kept row once before training, so that one the target cannot use (too long for its "
            "tokenizer, say) is left out and named instead of ending the run hours later."
        },
    )

    def __post_init__(self) -> None:
        require_choice("sampling", self.sampling, SAMPLING_ORDERS)
        super().__post_init__()


def refuse_unknown(trainer: type, given: Mapping[str, Any]) -> None:
    """Raises ``ConfigError`` for a keyword argument that a trainer does not take."""
    taken = inspect.signature(trainer.__init__).parameters  # type: ignore[misc]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        require_known(f"argument of {trainer.__name__}", given, set(taken) - {"self"})


def selection_config(args: transformers.TrainingArguments) -> SelectionConfig:
    """The selection that ``args`` ask for: the default one where a script brings plain ``TrainingArguments``."""
    return args.selection_config() if isinstance(args, SelectionArguments) else SelectionConfig()


def sampling_order(args: transformers.TrainingArguments) -> str:
    """The order that ``args`` ask for.

    Raises:
        ConfigError: If they also ask for a strategy of ``Trainer``'s own, which would replace ``OSTSampler``.
    """
    strategy = getattr(args, "train_sampling_strategy", "random")
    if strategy != "random":
        raise ConfigError(
            f"train_sampling_strategy is {strategy!r}, but with a selection OSTSampler decides the order of the rows; "
            f"leave it at 'random' and set sampling to one of {', '.join(SAMPLING_ORDERS)}"
        )
    return args.sampling if isinstance(args, OSTConfig) else "shuffled"
