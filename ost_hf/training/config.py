"""``OSTConfig``: ``TrainingArguments``, and everything that says how rows are chosen."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import transformers
from transformers.trainer_pt_utils import AcceleratorConfig

from ost_hf.errors import ConfigError, require_choice, require_known
from ost_hf.selection.config import SelectionConfig
from ost_hf.settings import Section, as_mapping
from ost_hf.training.sampler import SAMPLING_ORDERS

# Of the fields below: what goes into the section `selection`, sections as JSON, and where a choice comes from.
_SELECTION = ("keep_ratio", "keep_count", "min_utility", "drop_toxic", "weighted_loss")
_SECTIONS = ("scoring", "encoding", "duplicates")
_SOURCES = ("proxy", "anchors", "scores", "selection")

A = TypeVar("A", bound=transformers.TrainingArguments)


@dataclass
class SelectionArguments:
    """Fields that go in front of any ``TrainingArguments``; a trainer's keywords of the same names outweigh them."""

    keep_ratio: float | None = field(
        default=None, metadata={"help": "Share of the pool to keep, in (0, 1]; 0.5 if nothing else is set."}
    )
    keep_count: int | None = field(default=None, metadata={"help": "Number of rows to keep."})
    min_utility: float | None = field(default=None, metadata={"help": "Keep only rows of at least this utility."})
    drop_toxic: bool = field(
        default=False, metadata={"help": "Never keep a row whose verdict is toxic, even if less than asked is kept."}
    )
    weighted_loss: bool = field(
        default=False,
        metadata={
            "help": "Weigh the loss of each row by how likely it is clean and of the anchors' kind: by the selection's "
            "column ost_weight."
        },
    )
    strategy: str | None = field(
        default=None,
        metadata={
            "help": "How rows are scored and chosen: `auto` (default), `thorough` (the same with a longer second "
            "look), `one_step` or `paper`."
        },
    )
    proxy: dict | str | None = field(
        default=None,
        metadata={
            "help": "Score the training set first: a small model's name or folder, or ProxyConfig fields as JSON."
        },
    )
    anchors: dict | str | None = field(
        default=None,
        metadata={"help": "With proxy: a few clean rows, by name or file, or AnchorConfig fields as JSON."},
    )
    scores: str | None = field(
        default=None, metadata={"help": "In place of proxy: a run directory with scores to choose by."}
    )
    selection: str | None = field(
        default=None, metadata={"help": "In place of proxy: a run directory, or file, with a selection to train on."}
    )
    scoring: dict | str | None = field(
        default=None, metadata={"help": "With proxy: fields of ScoringConfig that differ from the strategy's, as JSON."}
    )
    encoding: dict | str | None = field(
        default=None, metadata={"help": "How rows become tokens: fields of EncodingConfig as JSON."}
    )
    duplicates: dict | str | None = field(
        default=None, metadata={"help": "With proxy: what is done about copies, fields of DuplicatesConfig as JSON."}
    )

    def __post_init__(self) -> None:
        for name in (*_SOURCES, *_SECTIONS):
            setattr(self, name, _plain(name, getattr(self, name)))
        for name in _SECTIONS:
            setattr(self, name, _from_json(name, getattr(self, name)))
        for name in ("proxy", "anchors"):  # a name, or fields
            value = getattr(self, name)
            if isinstance(value, str) and value.lstrip().startswith("{"):
                setattr(self, name, _from_json(name, value))
        SelectionConfig(**self.selection_fields())
        # The next class in line is TrainingArguments, which does most of its work here.
        super().__post_init__()  # type: ignore[misc]

    def selection_fields(self) -> Section:
        """The fields of the section ``selection`` that were set."""
        values = {name: getattr(self, name) for name in _SELECTION}
        return {name: value for name, value in values.items() if value is not None and value is not False}

    def choosing(self) -> Section:
        """Everything else that was set about how rows are chosen."""
        values = {name: getattr(self, name) for name in ("strategy", *_SOURCES, *_SECTIONS)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass
class OSTConfig(SelectionArguments, transformers.TrainingArguments):
    """``TrainingArguments`` with everything that says how rows are chosen.

    Example:
        >>> OSTConfig("out", keep_ratio=0.3, proxy="Qwen/Qwen3-0.6B", anchors="anchors.jsonl")  # doctest: +SKIP
    """

    sampling: str = field(
        default="shuffled",
        metadata={
            "help": "Order of the kept rows: `shuffled`; `ranked`, by the selection's rank, best first, the same in "
            "every epoch; `weighted`, drawn with replacement, more often the higher the utility: by the selection's "
            "utility, whatever order ranked them."
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


def _plain(name: str, value: Any) -> Any:
    """A value that can be written as JSON, as all of ``TrainingArguments`` are, into checkpoints and logs."""
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return as_mapping(value, only_given=True)
    if value is None or isinstance(value, (str, dict)):
        return value
    raise ConfigError(
        f"{name} of a configuration is text or a mapping, got a {type(value).__name__}: give it to the trainer, as "
        f"{name}=..."
    )


def _from_json(name: str, value: Any) -> Any:
    """A section's fields, given as JSON by a script's flags."""
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name} is no JSON ({error}), got {value!r}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{name} must hold fields and values as JSON, got {value!r}")
    return found


def copied(args: A) -> A:
    """A copy that a trainer may change, with nested settings of its own; what lives behind them is shared."""
    result = copy.copy(args)
    for item in fields(args):
        value = getattr(args, item.name)
        if isinstance(value, (dict, list, AcceleratorConfig)):
            setattr(result, item.name, copy.deepcopy(value))
    return result


def refuse_unknown(trainer: type, given: Mapping[str, Any]) -> None:
    """Raises ``ConfigError`` for a keyword argument that a trainer does not take."""
    taken = inspect.signature(trainer.__init__).parameters  # type: ignore[misc]
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        require_known(f"argument of {trainer.__name__}", given, set(taken) - {"self"})


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
