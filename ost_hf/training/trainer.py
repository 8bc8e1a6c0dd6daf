"""``OSTTrainer``: a ``transformers.Trainer`` that trains on the rows worth training on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from torch.utils.data import IterableDataset

from ost_hf.data.collator import Collator
from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.data.sources import rows_in_memory
from ost_hf.errors import ConfigError
from ost_hf.models import TargetConfig, load_model, load_processing_class
from ost_hf.parallel import is_main
from ost_hf.selection.kept import Kept, Selection, find_kept
from ost_hf.training.config import OSTConfig, copied, refuse_unknown, sampling_order
from ost_hf.training.marks import MarkedRows
from ost_hf.training.mixin import SelectionMixin
from ost_hf.training.plan import given_choices, has_source, plan_selection
from ost_hf.training.streams import filter_stream
from ost_hf.training.usable import UsableRows, drop_unusable, hash_once

logger = logging.getLogger(__name__)

_LOSSY = (torch.bfloat16, torch.float16)


class OSTTrainer(SelectionMixin, transformers.Trainer):
    """Fine-tunes on the kept rows of a training set. Given nothing of ours it is a plain ``Trainer``.

    The constructor checks what can be checked in seconds. The pool is scored, and rows are chosen, when ``train`` is
    called, or before by :meth:`score` and :meth:`select`; the proxy is freed before the training begins.

    Args:
        model: As in ``Trainer``, or a model's name or folder: it is loaded in float32, and its tokenizer or processor
            with it.
        args: ``OSTConfig``, or plain ``TrainingArguments`` for the default selection. They are never changed.
        data_collator: As in ``Trainer``. Without one, a ``datasets.Dataset`` of text in one of the accepted layouts
            is encoded with ``processing_class`` (labels on the answers only) and collated here, and one of tokens with
            labels is padded.
        train_dataset: The pool: ``datasets.Dataset``, ``Rows``, ``EncodedDataset``, any dataset with a length, or an
            iterable one of model inputs whose rows have an ``example_id``.
        eval_dataset: As in ``Trainer``; encoded as the training set is. When the pool is scored here, it is held
            against these rows, or against each of several sets. Rows that cannot be encoded are looked for, and left
            out, when the set's length is first asked for: ``len(trainer.eval_dataset)`` belongs on every process.
        processing_class: The target's tokenizer or processor.
        scores: A score table or its run directory; kept rows are chosen by ``args``.
        selection: A selection, its table, its file or its run directory, in place of ``scores``.
        proxy: A small model's name, its folder or its ``ProxyConfig``: score first, into ``output_dir/ost``.
        anchors: The anchor set, for ``proxy``: a name, a file, a ``datasets.Dataset``, a list of rows, ``Rows`` or
            ``AnchorConfig``.
        strategy: How a pool is scored and chosen from: ``auto`` (default), ``thorough``, ``one_step`` or ``paper``.
        scoring: Fields of ``ScoringConfig`` that are to differ from the strategy's, as a ``dict`` or a
            ``ScoringConfig``, of which the fields count that it was made with.
        encoding: How rows become tokens, for proxy and target.
        duplicates: What is done about rows of the pool that repeat another, an anchor or a row of ``eval_dataset``,
            given like ``scoring``.
        **kwargs: Everything else that ``Trainer`` takes.

    Raises:
        ConfigError: If more than one source of a selection is given, or what could not be trained with.
        DataError: For rows that cannot be scored.

    Example:
        >>> trainer = OSTTrainer(
        ...     "Qwen/Qwen3-1.7B", OSTConfig("out", keep_ratio=0.3), train_dataset=pool,
        ...     proxy="Qwen/Qwen3-0.6B", anchors=anchors,
        ... )
        >>> trainer.train()  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any = None,
        args: transformers.TrainingArguments | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        scores: Any = None,
        selection: Any = None,
        proxy: Any = None,
        anchors: Any = None,
        strategy: str | None = None,
        scoring: Any = None,
        encoding: Any = None,
        duplicates: Any = None,
        **kwargs: Any,
    ):
        own = {
            "scores": scores, "selection": selection, "proxy": proxy, "anchors": anchors, "strategy": strategy,
            "scoring": scoring, "encoding": encoding, "duplicates": duplicates,
        }  # fmt: skip
        given = given_choices(args, own)
        target = TargetConfig(model=str(model)) if isinstance(model, (str, Path)) else None
        processing_class = _processing_class(target, processing_class)
        if has_source(given):
            args = copied(args) if args is not None else OSTConfig("tmp_trainer")
            refuse_unknown(transformers.Trainer, kwargs)
            _check(args, train_dataset, eval_dataset, processing_class, data_collator)
        self._plan = plan_selection(args, given, train_dataset, eval_dataset, processing_class)
        if self._plan is not None and data_collator is None and processing_class is not None:
            encoder = Encoder(processing_class, self._plan.encoding)
            train_dataset = _encoded(train_dataset, encoder)
            eval_dataset = _usable(_encoded(eval_dataset, encoder), args)
            data_collator = _collator_for(train_dataset, processing_class)
            if isinstance(train_dataset, EncodedDataset):
                # Encoded rows hold model inputs only, some of them behind a forward's **kwargs.
                args.remove_unused_columns = False  # type: ignore[union-attr]
        super().__init__(
            model=model if target is None else load_model(target),
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        self._check_made()

    train_dataset: Any

    def _check_made(self) -> None:
        if self._plan is None:
            return
        if not (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            _warn_of_lost_steps(self.model)
        if self._plan.weighted:
            self._weigh()

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As in ``Trainer``; scores and selects first where that was not done yet."""
        sets = self.eval_dataset if isinstance(self.eval_dataset, dict) else {None: self.eval_dataset}
        for one in sets.values() if self.args.eval_strategy != "no" else ():
            if isinstance(one, UsableRows):
                len(one)  # a set without a usable row would end the training at its first evaluation
        return super().train(*args, **kwargs)

    def _take(self, selection: Selection) -> None:
        if isinstance(self.train_dataset, IterableDataset):
            self.train_dataset = filter_stream(self.train_dataset, selection.table, self._weighs)
            return
        self._kept = _find_usable(self.train_dataset, selection, self.args)
        if self._weighs or any(marks.masked for marks in self._kept.marks):
            marks = dict(zip(self._kept.indices, self._kept.marks, strict=True))
            self.train_dataset = MarkedRows(self.train_dataset, marks, self._weighs)


def _processing_class(target: TargetConfig | None, given: Any) -> Any:
    """The tokenizer or processor that was given; else that of a model which is loaded by name."""
    return load_processing_class(target) if given is None and target is not None else given


def _collator_for(train_dataset: Any, processing_class: Any) -> Any:
    """The collator of a training set that came without one; ``None`` leaves the choice to ``Trainer``."""
    if isinstance(train_dataset, EncodedDataset):
        return Collator.of(processing_class)
    if isinstance(train_dataset, datasets.Dataset) and "labels" in train_dataset.column_names:
        # Trainer's own choice pads no labels.
        return transformers.DataCollatorForSeq2Seq(getattr(processing_class, "tokenizer", processing_class))
    return None


def _warn_of_lost_steps(model: torch.nn.Module) -> None:
    """Says so where weights are trained in a precision in which most small steps change nothing."""
    lossy = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.dtype in _LOSSY]
    if lossy and is_main():
        logger.warning(
            "%d tensors, such as %s, are trained in %s, in which a step below a few thousandths of a weight is lost: "
            "load the model in float32 and set bf16=True for mixed precision (DeepSpeed keeps float32 ones itself)",
            len(lossy), lossy[0], str(model.get_parameter(lossy[0]).dtype).removeprefix("torch."),
        )  # fmt: skip


def _check(
    args: transformers.TrainingArguments, train_dataset: Any, eval_dataset: Any, processing_class: Any, collator: Any
) -> None:
    """Raises ``ConfigError`` for what would end the training after the pool was scored."""
    order = sampling_order(args)
    if args.eval_strategy != "no" and eval_dataset is None:
        raise ConfigError(f"eval_strategy is {args.eval_strategy!r}, but there is no eval_dataset to evaluate on")
    if isinstance(train_dataset, Rows) and (processing_class is None or collator is not None):
        raise ConfigError("Rows are encoded by OSTTrainer: give processing_class and no data_collator with them")
    names: list[str] = getattr(train_dataset, "column_names", None) or []  # of a stream they may not be known
    is_text = bool(names) and "input_ids" not in names and collator is None
    if isinstance(train_dataset, datasets.Dataset) and is_text and processing_class is None:
        raise ConfigError("text is encoded by OSTTrainer: give processing_class, or rows that are tokenised already")
    if isinstance(train_dataset, IterableDataset):
        if order != "shuffled":
            raise ConfigError(
                f"sampling {order!r} needs rows in any order, but an iterable training set is read in its "
                "own: give a datasets.Dataset, or leave sampling unset"
            )
        if is_text:
            raise ConfigError(
                f"a stream is not encoded by OSTTrainer, and this one has the columns {', '.join(names)}: map a "
                "tokenizer over it, give a data_collator that encodes, or a datasets.Dataset"
            )


def _find_usable(dataset: Any, selection: Selection, args: transformers.TrainingArguments) -> Kept:
    """The kept rows of a training set that can be encoded."""
    hash_once(dataset)
    kept = find_kept(dataset, selection.table)
    if getattr(args, "check_rows", True) and isinstance(dataset, EncodedDataset):
        report = Path(str(args.output_dir)) / "rows_not_used.json"
        kept = drop_unusable(dataset, kept, report, args.dataloader_num_workers)
    logger.info("training on %d of %d rows", len(kept.indices), kept.pool_size)
    return kept


def _usable(dataset: Any, args: Any, name: str = "eval_dataset") -> Any:
    """Without rows that cannot be encoded, where the dataset is encoded here and ``check_rows`` is left on."""
    if isinstance(dataset, dict):
        return {key: _usable(one, args, f"eval_dataset {key!r}") for key, one in dataset.items()}
    if not isinstance(dataset, EncodedDataset) or not getattr(args, "check_rows", True):
        return dataset
    return UsableRows(dataset, name, args.dataloader_num_workers)


def _encoded(dataset: Any, encoder: Encoder) -> Any:
    """The dataset, or each of several by name, encoded on access if its rows are text; any other as it is."""
    if isinstance(dataset, dict):
        return {name: _encoded(one, encoder) for name, one in dataset.items()}
    if isinstance(dataset, Rows):
        return EncodedDataset(dataset, encoder)
    if not isinstance(dataset, datasets.Dataset) or "input_ids" in dataset.column_names:
        return dataset
    return EncodedDataset(rows_in_memory(dataset), encoder)
