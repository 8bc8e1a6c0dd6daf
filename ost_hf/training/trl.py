"""The same for TRL's ``SFTTrainer``.

TRL prepares the dataset in its constructor, and packing destroys the identity of rows. So the training set is left as
it is there, and is prepared when its rows have been chosen: TRL's own sampler and logs are right as they are.
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import datasets
from torch.utils.data import IterableDataset
from trl import SFTConfig, SFTTrainer

from ost_hf.errors import ConfigError, DataError
from ost_hf.functional.loss import IGNORE_INDEX
from ost_hf.parallel import is_main
from ost_hf.selection.kept import Selection, find_kept
from ost_hf.selection.marks import ON_ROWS, Marks
from ost_hf.tables.selection_table import MASKED, TURNS, WEIGHT
from ost_hf.training.config import SelectionArguments, copied, refuse_unknown
from ost_hf.training.marks import masked_labels
from ost_hf.training.mixin import SelectionMixin
from ost_hf.training.plan import KEYWORDS, given_choices, has_source, plan_selection
from ost_hf.training.streams import filter_stream

logger = logging.getLogger(__name__)

# Columns that rows bring through TRL's preparation.
_MASKED, _TURNS = ON_ROWS[MASKED], ON_ROWS[TURNS]
_NEEDS_LABELS = (
    "OSTSFTTrainer can leave turns out where labels tell them apart: with assistant_only_loss=True on text alone, or "
    "rows with labels; without packing, and not of a stream"
)


@dataclass
class OSTSFTConfig(SelectionArguments, SFTConfig):
    """``SFTConfig`` with everything that says how rows are chosen."""


class OSTSFTTrainer(SelectionMixin, SFTTrainer):
    """``SFTTrainer`` on the kept rows of its training set.

    As ``OSTTrainer``, it scores and selects when ``train`` is called, or before by ``score`` and ``select``; TRL
    prepares the kept rows then.

    Args:
        *args: As in ``SFTTrainer``.
        **kwargs: As in ``SFTTrainer``, and ``scores``, ``selection``, ``proxy``, ``anchors``, ``strategy``,
            ``scoring``, ``duplicates`` as in ``OSTTrainer``. ``encoding`` says how rows become tokens for the proxy;
            for the target ``SFTConfig`` says that: its ``max_length``, and whether all turns of ``messages`` are learnt
            or, by ``assistant_only_loss``, answers alone. The training set is a ``datasets.Dataset``, or an iterable
            one whose rows have an ``example_id``.

    Raises:
        ConfigError: As ``OSTTrainer`` does.
        DataError: For rows that ``SFTTrainer`` cannot take.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        own = {name: kwargs.pop(name, None) for name in KEYWORDS}
        named = _named(self, args, kwargs)
        config, pool = named.get("args"), named.get("train_dataset")
        given = given_choices(config, own)
        if has_source(given):
            named["args"] = config = OSTSFTConfig("tmp_trainer") if config is None else copied(config)
            refuse_unknown(SFTTrainer, kwargs)
            if pool is not None:
                _check_rows(config, pool, named.get("formatting_func"))
        processing_class = named.get("processing_class")
        self._plan = plan_selection(config, given, pool, named.get("eval_dataset"), processing_class)
        if self._plan is not None and self._plan.weighted:
            _choose_loss(named["args"])
        self._pool = pool
        # How TRL would have prepared the training set; nothing where it does not.
        self._preparation: tuple[Any, ...] | None = None
        super().__init__(**named)
        if self._plan is not None and self._plan.weighted:
            self._weigh()
        if self._plan is not None and self._plan.ready is not None and _masks(self._plan.ready):
            _check_turns(self.args, pool)

    def _prepare_dataset(self, dataset: Any, *more: Any, **named: Any) -> Any:
        waits = self._plan is not None and self._selection is None and self._preparation is None
        if waits and dataset is self._pool:
            self._preparation = (more, named)
            return dataset
        return super()._prepare_dataset(dataset, *more, **named)

    def _take(self, selection: Selection) -> None:
        pool = self._pool
        if isinstance(pool, datasets.Dataset):
            kept = find_kept(pool, selection.table)
            marks = [marks for _, marks in sorted(zip(kept.indices, kept.marks, strict=True), key=itemgetter(0))]
            pool = _marked(pool.select(sorted(kept.indices)), marks, self._weighs)
        else:
            pool = filter_stream(pool, selection.table, self._weighs)
        if self._preparation is not None:
            more, named = self._preparation
            pool = super()._prepare_dataset(pool, *more, **named)
        self.train_dataset = _masked(pool)


def _choose_loss(args: Any) -> None:
    """Has TRL compute its usual loss where rows are weighed: some releases would do so in chunks, out of reach."""
    if getattr(args, "loss_type", "nll") in (None, "chunked_nll"):
        args.loss_type = "nll"
        if is_main():
            logger.warning(
                "weighted_loss: loss_type is 'nll', not TRL's 'chunked_nll', which sums over rows before they can be "
                "weighed. It is the same loss, and takes the memory of all logits"
            )


def _masks(selection: Selection) -> bool:
    return MASKED in selection.table.column_names and any(selection.kept[MASKED].to_pylist())


def _check_turns(args: Any, pool: Any) -> None:
    """Raises ``ConfigError`` where masked turns could not be found in what TRL makes of rows."""
    names = getattr(pool, "column_names", None) or []
    is_chat = "messages" in names and not args.assistant_only_loss
    if args.packing or is_chat or {"image", "images"} & set(names) or not isinstance(pool, datasets.Dataset):
        raise ConfigError(f"the selection masks turns: {_NEEDS_LABELS}")


def _marked(rows: datasets.Dataset, marks: list[Marks], weighted: bool) -> datasets.Dataset:
    """Kept rows with columns of what the selection says of them, which TRL's preparation leaves as they are."""
    columns: dict[str, list[Any]] = {WEIGHT: [each.weight for each in marks]} if weighted else {}
    if any(each.masked for each in marks):
        columns |= {_MASKED: [list(each.masked) for each in marks], _TURNS: [each.turns for each in marks]}
    for name, values in columns.items():
        # A pool that was curated before brings such a column, which speaks of another selection.
        rows = rows.remove_columns(name) if name in rows.column_names else rows
        rows = rows.add_column(name, values)
    return rows


def _masked(rows: Any) -> Any:
    """Prepared rows without labels on the turns that are masked.

    Raises:
        DataError: Where labels cannot be told by turns.
    """
    names = (rows.column_names or []) if isinstance(rows, datasets.Dataset) else []
    if _MASKED not in names:
        return rows
    # Older releases make labels of such masks when they collate.
    column = next((name for name in ("labels", "assistant_masks") if name in names), None)
    if column is None:
        raise DataError(f"the selection masks turns: {_NEEDS_LABELS}")

    def mask(row: dict[str, Any]) -> dict[str, Any]:
        marks = Marks(masked=tuple(row[_MASKED]), turns=row[_TURNS])
        if not marks.masked:
            return {column: row[column]}
        if column == "labels":
            return {column: masked_labels(row[column], marks)}
        labels = [1 if bit else IGNORE_INDEX for bit in row[column]]
        return {column: [int(label == 1) for label in masked_labels(labels, marks)]}

    return rows.map(mask, remove_columns=[_MASKED, _TURNS])


def _named(trainer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments of ``SFTTrainer`` by name; those that it does not know are left for it, or us, to refuse."""
    signature = inspect.signature(SFTTrainer.__init__)
    known = {name: value for name, value in kwargs.items() if name in signature.parameters}
    named = {**signature.bind_partial(trainer, *args, **known).arguments, **kwargs}
    del named["self"]
    config = named.get("args")
    if isinstance(config, SelectionArguments) and not isinstance(config, SFTConfig):
        raise ConfigError(f"OSTSFTTrainer takes an OSTSFTConfig, got {type(config).__name__}")
    return named


def _check_rows(args: Any, train_dataset: Any, formatting_func: Any) -> None:
    """Raises ``DataError`` for rows that ``SFTTrainer`` would refuse after the pool was scored."""
    if not isinstance(train_dataset, (datasets.Dataset, IterableDataset)):
        raise DataError(f"OSTSFTTrainer selects from a datasets.Dataset, not from {type(train_dataset).__name__}")
    names: list[str] = getattr(train_dataset, "column_names", None) or []  # of a stream they may not be known
    text_field = getattr(args, "dataset_text_field", "text")  # of plain TrainingArguments TRL makes its own
    taken = ({"messages"}, {"prompt", "completion"}, {text_field}, {"input_ids"})
    if names and formatting_func is None and not any(columns <= set(names) for columns in taken):
        raise DataError(
            f"SFTTrainer takes rows of messages, prompt and completion, {text_field} or input_ids, and "
            f"these have {', '.join(names)}: rename question to prompt and answer to completion, or give "
            "formatting_func"
        )
    if "messages" in names and not getattr(args, "assistant_only_loss", False) and is_main():
        logger.warning(
            "rows are scored by their answers, but SFTTrainer will learn all turns of messages: set "
            "assistant_only_loss=True, or give prompt and completion"
        )
