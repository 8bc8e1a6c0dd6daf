"""``OSTTrainer``: a ``transformers.Trainer`` that trains on the rows worth training on.

Beside the constructor it overrides three small hooks: the choice of the train sampler, ``num_examples`` (so
that logs count kept rows), and ``log``. Given nothing of ours it is a plain ``Trainer``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import torch
import transformers
from torch.utils.data import DataLoader, IterableDataset

from ost_hf.data.collator import Collator
from ost_hf.data.config import AnchorConfig, EncodingConfig
from ost_hf.data.encoding import EncodedDataset, Encoder
from ost_hf.data.rows import Rows
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.errors import ConfigError
from ost_hf.parallel import is_main
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.tables.score_table import ScoreTable
from ost_hf.training.config import OSTConfig, refuse_unknown, sampling_order
from ost_hf.training.kept import Kept, drop_unusable, filter_stream, find_kept, usable_part
from ost_hf.training.resolve import resolve_selection, rows_of
from ost_hf.training.sampler import OSTSampler

logger = logging.getLogger(__name__)

_LOSSY = (torch.bfloat16, torch.float16)


class SelectionMixin:
    """What a ``Trainer`` needs to train on kept rows; mixed in front of one, it is idle until ``_kept`` is set."""

    _kept: Kept | None = None
    _kept_dataset: Any = None

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        if self._kept is None:
            return super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        # The dataset the loader will hold: Trainer may have removed columns from its own.
        self._kept_dataset = self.train_dataset if train_dataset is None else train_dataset  # type: ignore[attr-defined]
        args = self.args  # type: ignore[attr-defined]
        seed = args.data_seed if args.data_seed is not None else args.seed
        sampler = OSTSampler(self._kept.indices, self._kept.utilities, sampling_order(args), seed)
        self.remove_callback(_SetEpoch)  # type: ignore[attr-defined]  # of a loader before this one
        self.add_callback(_SetEpoch(sampler))  # type: ignore[attr-defined]
        return sampler

    def num_examples(self, dataloader: DataLoader) -> int:
        """Rows an epoch passes over: the kept ones for the training set."""
        if self._kept is not None and getattr(dataloader, "dataset", None) is self._kept_dataset:
            return len(self._kept.indices)
        return super().num_examples(dataloader)  # type: ignore[misc]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds to the closing line of a training how many rows of the pool were trained on."""
        if self._kept is not None and "train_runtime" in logs:
            logs["train_rows_kept"] = len(self._kept.indices)
            logs["train_rows_pool"] = self._kept.pool_size
        super().log(logs, *args, **kwargs)  # type: ignore[misc]


class _SetEpoch(transformers.TrainerCallback):
    """Tells the sampler its epoch.

    A run that several processes resume in the middle of an epoch hides the sampler behind Accelerate's
    skipping and sharing batch samplers, where ``Trainer`` does not find it.
    """

    def __init__(self, sampler: OSTSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))


class OSTTrainer(SelectionMixin, transformers.Trainer):
    """Fine-tunes on the kept rows of a training set.

    Args:
        model: As in ``Trainer``.
        args: ``OSTConfig``, or plain ``TrainingArguments`` for the default selection.
        data_collator: As in ``Trainer``. Without one, a ``datasets.Dataset`` of text in one of the accepted layouts
            is encoded with ``processing_class`` (labels on the answers only) and collated here, and one of tokens with
            labels is padded.
        train_dataset: The pool: ``datasets.Dataset``, ``Rows``, ``EncodedDataset``, any dataset with a length, or an
            iterable one of model inputs whose rows have an ``example_id``.
        eval_dataset: As in ``Trainer``; encoded as the training set is. When the pool is scored here, it is held
            against these rows, or against each of several sets.
        processing_class: The target's tokenizer or processor.
        scores: A score table or its run directory; kept rows are chosen by ``args``.
        selection: A selection table, its file or its run directory, in place of ``scores``.
        proxy: A small model's name or its ``ProxyConfig``: score first, into ``output_dir/ost``, free the
            proxy, then train. Needs ``anchors``.
        anchors: The anchor set: ``datasets.Dataset``, ``Rows`` or ``AnchorConfig``.
        strategy: How a pool that is scored here is scored and chosen from: ``auto`` (default), ``one_step`` or
            ``paper``.
        scoring: Fields of ``ScoringConfig`` that are to differ from the strategy's, as a ``dict``. A
            ``ScoringConfig`` is taken as it is, in place of a strategy: with a second look only if it has
            ``second_look=True``.
        encoding: How rows become tokens, for proxy and target.
        duplicates: What is done about rows of the pool that repeat another, an anchor or a row of ``eval_dataset``,
            when it is scored here. By ``auto`` copies within the pool, exact and near, are dropped; with another
            strategy or a ``ScoringConfig`` exact ones are reported. Copies of rows of ``eval_dataset``, in the pool or
            among the anchors, are refused. A ``DuplicatesConfig`` of one's own is taken as it is:
            ``within_pool="drop", near=True, anchors="drop"`` are ``auto``'s fields.
        **kwargs: Everything else that ``Trainer`` takes.

    Raises:
        ConfigError: If more than one source of a selection is given, a proxy without anchors, both a strategy
            and a ``ScoringConfig``, or what could not be trained with: said before anything is scored.
        DataError: If the selection does not fit the training set.
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
        scores: ScoreTable | pa.Table | str | Path | None = None,
        selection: pa.Table | str | Path | None = None,
        proxy: ProxyConfig | str | None = None,
        anchors: Rows | datasets.Dataset | AnchorConfig | None = None,
        strategy: str | None = None,
        scoring: ScoringConfig | Mapping[str, Any] | None = None,
        encoding: EncodingConfig | None = None,
        duplicates: DuplicatesConfig | None = None,
        **kwargs: Any,
    ):
        args = OSTConfig() if args is None else args
        if any(source is not None for source in (scores, selection, proxy)):
            # Before hours of scoring.
            refuse_unknown(transformers.Trainer, kwargs)
            _check(args, train_dataset, eval_dataset, processing_class, data_collator)
        table = resolve_selection(
            args, train_dataset, eval_dataset, processing_class,
            scores=scores, selection=selection, proxy=proxy, anchors=anchors, strategy=strategy, scoring=scoring,
            encoding=encoding, duplicates=duplicates,
        )  # fmt: skip
        if table is not None:
            if data_collator is None and processing_class is not None:
                encoder = Encoder(processing_class, encoding)
                train_dataset = _encoded(train_dataset, encoder)
                eval_dataset = _usable(_encoded(eval_dataset, encoder), args)
                if isinstance(train_dataset, EncodedDataset):
                    data_collator = Collator.of(processing_class)
                    # Encoded rows hold model inputs only, some of them behind a forward's **kwargs.
                    args.remove_unused_columns = False
                elif isinstance(train_dataset, datasets.Dataset) and "labels" in train_dataset.column_names:
                    # Trainer's own choice pads no labels.
                    tokenizer = getattr(processing_class, "tokenizer", processing_class)
                    data_collator = transformers.DataCollatorForSeq2Seq(tokenizer)
            if isinstance(train_dataset, IterableDataset):
                train_dataset = filter_stream(train_dataset, table)
            else:
                self._kept = _find_usable(train_dataset, table, args)
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        if table is not None and not (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            _warn_of_lost_steps(self.model)


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


def _find_usable(dataset: Any, table: pa.Table, args: transformers.TrainingArguments) -> Kept:
    """The kept rows of a training set that can be encoded."""
    _hash(dataset)
    kept = find_kept(dataset, table)
    if getattr(args, "check_rows", True) and isinstance(dataset, EncodedDataset):
        report = Path(args.output_dir) / "rows_not_used.json"
        kept = drop_unusable(dataset, kept, report, args.dataloader_num_workers)
    logger.info("training on %d of %d rows", len(kept.indices), kept.pool_size)
    return kept


def _hash(dataset: Any) -> None:
    """Hashes rows here once, where hashes are needed at all: a loader's workers would each do it again."""
    # Ids are hashes where there is no column of them, and the cache of encoded rows knows rows by hashes.
    if isinstance(dataset, EncodedDataset) and (
        dataset.rows.config.id_column is None or dataset.encoder.config.cache_mib
    ):
        dataset.rows.hash_together()


def _usable(dataset: Any, args: transformers.TrainingArguments, name: str = "eval_dataset") -> Any:
    """Without rows that cannot be encoded, where the dataset is encoded here and ``check_rows`` is left on."""
    if isinstance(dataset, dict):
        return {key: _usable(one, args, f"eval_dataset {key!r}") for key, one in dataset.items()}
    if not isinstance(dataset, EncodedDataset) or not getattr(args, "check_rows", True):
        return dataset
    _hash(dataset)
    return usable_part(dataset, name, args.dataloader_num_workers)


def _encoded(dataset: Any, encoder: Encoder) -> Any:
    """The dataset, or each of several by name, encoded on access if its rows are text; any other as it is."""
    if isinstance(dataset, dict):
        return {name: _encoded(one, encoder) for name, one in dataset.items()}
    if isinstance(dataset, Rows):
        return EncodedDataset(dataset, encoder)
    if not isinstance(dataset, datasets.Dataset) or "input_ids" in dataset.column_names:
        return dataset
    return EncodedDataset(rows_of(dataset), encoder)
