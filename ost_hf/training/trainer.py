"""``OSTTrainer``: a ``transformers.Trainer`` that trains on the rows worth training on.

Beside the constructor it overrides three small hooks: the choice of the train sampler, ``num_examples`` (so
that logs count kept rows), and ``log``. Given nothing of ours it is a plain ``Trainer``.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import torch
import transformers
from torch.utils.data import DataLoader, IterableDataset

from ost_hf.data.anchors import load_anchors
from ost_hf.data.collator import Collator
from ost_hf.data.config import AnchorConfig, DatasetConfig, DuplicatesConfig, EncodingConfig
from ost_hf.data.encoding import EncodedDataset, Encoder
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError
from ost_hf.parallel import barrier, free_memory, is_main, outside_deepspeed
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.anchor_scores import read_anchor_scores
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.runner import score_pool
from ost_hf.scoring.score_table import ScoreTable
from ost_hf.scoring.strategy import DEFAULT_STRATEGY, STRATEGIES
from ost_hf.selection.config import SelectionConfig
from ost_hf.selection.selector import read_selection, select, write_selection
from ost_hf.training.config import OSTConfig, sampling_order, selection_config
from ost_hf.training.kept import Kept, drop_unusable, filter_stream, find_kept
from ost_hf.training.sampler import OSTSampler

logger = logging.getLogger(__name__)


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
        data_collator: As in ``Trainer``. Without one, a ``datasets.Dataset`` in one of the accepted layouts
            is encoded with ``processing_class`` (labels on the answers only) and collated here.
        train_dataset: The pool: ``datasets.Dataset``, ``Rows``, ``EncodedDataset``, any dataset with a length, or an
            iterable one whose rows have an ``example_id``.
        eval_dataset: As in ``Trainer``; encoded as the training set is. When the pool is scored here, it is held
            against these rows, or against each of several sets.
        processing_class: The target's tokenizer or processor.
        scores: A score table or its run directory; kept rows are chosen by ``args``.
        selection: A selection table, its file or its run directory, in place of ``scores``.
        proxy: A small model's name or its ``ProxyConfig``: score first, into ``output_dir/ost``, free the
            proxy, then train. Needs ``anchors``.
        anchors: The anchor set: ``datasets.Dataset``, ``Rows`` or ``AnchorConfig``.
        scoring: How to score; by default as strategy ``auto`` does. One's own is taken as it is: with a second look
            only if it has ``second_look=True``.
        encoding: How rows become tokens, for proxy and target.
        duplicates: What is done about rows of the pool that repeat another, an anchor or a row of ``eval_dataset``,
            when it is scored here; by default copies within the pool, exact and near, are dropped; with a ``scoring``
            of one's own exact ones are reported. Copies of rows of ``eval_dataset``, in the pool or among the anchors,
            are refused. A ``DuplicatesConfig`` of one's own is taken as it is: ``within_pool="drop", near=True,
            anchors="drop"`` are the default's fields.
        **kwargs: Everything else that ``Trainer`` takes.

    Raises:
        ConfigError: If more than one source of a selection is given, or a proxy without anchors.
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
        scoring: ScoringConfig | None = None,
        encoding: EncodingConfig | None = None,
        duplicates: DuplicatesConfig | None = None,
        **kwargs: Any,
    ):
        args = OSTConfig() if args is None else args
        table = resolve_selection(
            args, train_dataset, eval_dataset, processing_class,
            scores=scores, selection=selection, proxy=proxy, anchors=anchors, scoring=scoring, encoding=encoding,
            duplicates=duplicates,
        )  # fmt: skip
        if table is not None:
            order = sampling_order(args)
            if data_collator is None and processing_class is not None:
                encoder = Encoder(processing_class, encoding)
                train_dataset = _encoded(train_dataset, encoder)
                eval_dataset = _encoded(eval_dataset, encoder)
                if isinstance(train_dataset, EncodedDataset):
                    data_collator = Collator.of(processing_class)
                    # Encoded rows hold model inputs only, some of them behind a forward's **kwargs.
                    args.remove_unused_columns = False
            if isinstance(train_dataset, Rows):
                raise ConfigError(
                    "Rows are encoded by OSTTrainer: give processing_class and no data_collator with them"
                )
            if isinstance(train_dataset, IterableDataset):
                if order != "shuffled":
                    raise ConfigError(
                        f"sampling {order!r} needs rows in any order, but an iterable training set is read in its "
                        "own: give a datasets.Dataset, or leave sampling unset"
                    )
                train_dataset = filter_stream(train_dataset, table)
            else:
                if isinstance(train_dataset, EncodedDataset) and train_dataset.rows.config.id_column is None:
                    train_dataset.rows.hash_together()
                self._kept = find_kept(train_dataset, table)
                if getattr(args, "check_rows", True) and isinstance(train_dataset, EncodedDataset):
                    report = Path(args.output_dir) / "rows_not_used.json"
                    self._kept = drop_unusable(train_dataset, self._kept, report, args.dataloader_num_workers)
                logger.info("training on %d of %d rows", len(self._kept.indices), self._kept.pool_size)
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )


def resolve_selection(
    args: transformers.TrainingArguments,
    train_dataset: Any,
    eval_dataset: Any,
    processing_class: Any,
    *,
    scores: ScoreTable | pa.Table | str | Path | None,
    selection: pa.Table | str | Path | None,
    proxy: ProxyConfig | str | None,
    anchors: Rows | datasets.Dataset | AnchorConfig | None,
    scoring: ScoringConfig | None,
    encoding: EncodingConfig | None,
    duplicates: DuplicatesConfig | None = None,
) -> pa.Table | None:
    """The selection table that a trainer was given, or makes it: from scores, or by scoring first.

    Returns:
        ``None`` if nothing of ours was given.

    Raises:
        ConfigError: If the arguments contradict each other.
        DataError: If scoring is asked for without rows that can be scored.
    """
    given = [
        name for name, value in (("scores", scores), ("selection", selection), ("proxy", proxy)) if value is not None
    ]
    if len(given) > 1:
        raise ConfigError(f"give one of scores, selection and proxy, not {' and '.join(given)}")
    if (proxy is None) != (anchors is None):
        lacking, present = ("anchors", "a proxy") if anchors is None else ("a proxy", "anchors")
        raise ConfigError(f"scoring needs a proxy and anchors; {present} came without {lacking}")
    if duplicates is not None and proxy is None:
        raise ConfigError("duplicates are looked for before scoring: give a proxy and anchors with them")
    wanted = selection_config(args)
    if not given:
        if wanted != SelectionConfig() or getattr(args, "sampling", "shuffled") != "shuffled":
            raise ConfigError(
                "keep_ratio, keep_count, min_utility and sampling need something to choose by: give scores, "
                "a selection, or a proxy with anchors; leave them unset for a plain Trainer"
            )
        return None
    if train_dataset is None:
        raise ConfigError(f"{given[0]} was given, but no train_dataset to select from")
    if selection is not None:
        if wanted != SelectionConfig():
            raise ConfigError(
                "a selection table says already what is kept; leave keep_ratio, keep_count and min_utility unset, "
                "or give scores instead of the selection"
            )
        return selection if isinstance(selection, pa.Table) else read_selection(selection)
    if proxy is not None:
        assert anchors is not None
        return _score_first(
            args, wanted, train_dataset, eval_dataset, processing_class, proxy, anchors, scoring, encoding, duplicates
        )
    assert scores is not None
    return _select_from(scores, wanted)


def _select_from(scores: ScoreTable | pa.Table | str | Path, wanted: SelectionConfig) -> pa.Table:
    """Selects from a table, or from one that a folder or a run directory holds."""
    if isinstance(scores, (str, Path)):
        folder = Path(scores)
        scores = ScoreTable(folder / "scores" if (folder / "scores").is_dir() else folder)
    if isinstance(scores, ScoreTable):
        return select(scores.read(), wanted, read_anchor_scores(scores))
    return select(scores, wanted)


def _score_first(
    args: transformers.TrainingArguments,
    wanted: SelectionConfig,
    train_dataset: Any,
    eval_dataset: Any,
    processing_class: Any,
    proxy: ProxyConfig | str,
    anchors: Rows | datasets.Dataset | AnchorConfig,
    scoring: ScoringConfig | None,
    encoding: EncodingConfig | None,
    duplicates: DuplicatesConfig | None,
) -> pa.Table:
    """Scores into ``output_dir/ost`` and selects."""
    pool = _pool_of(train_dataset, processing_class)
    overlap = anchors.overlap if isinstance(anchors, AnchorConfig) else "error"
    if isinstance(anchors, AnchorConfig):
        anchors = load_anchors(anchors)
    elif isinstance(anchors, datasets.Dataset):
        anchors = rows_of(anchors, processing_class)
    run_dir = Path(args.output_dir) / "ost"
    proxy = ProxyConfig(model=proxy) if isinstance(proxy, str) else proxy
    if scoring is None:
        defaults = STRATEGIES[DEFAULT_STRATEGY]
        scoring = ScoringConfig(**defaults["scoring"])
        duplicates = duplicates or DuplicatesConfig(**defaults["duplicates"])
    scoring = scoring.near_the_cut(wanted.keep_ratio, wanted.other_cuts)
    duplicates = duplicates or DuplicatesConfig()
    evaluation = _held_out(eval_dataset, pool, processing_class) if duplicates.evaluation != "off" else None
    with outside_deepspeed():
        table = score_pool(run_dir, pool, anchors, proxy, scoring, encoding, overlap, duplicates, evaluation)
    free_memory()
    selection = select(table.read(), wanted, read_anchor_scores(table))
    if is_main():
        write_selection(selection, run_dir / "selection.parquet")
    barrier()
    return selection


def _pool_of(train_dataset: Any, processing_class: Any) -> Rows:
    if isinstance(train_dataset, Rows):
        return train_dataset
    if isinstance(train_dataset, EncodedDataset):
        return train_dataset.rows
    if not isinstance(train_dataset, datasets.Dataset):
        raise DataError(
            f"a {type(train_dataset).__name__} cannot be scored; give a datasets.Dataset, Rows or an EncodedDataset, "
            "or score beforehand with score_pool and pass the table as scores"
        )
    return rows_of(train_dataset, processing_class)


def _held_out(eval_dataset: Any, pool: Rows, processing_class: Any) -> list[Rows]:
    """The evaluation sets that can be held against the pool; the log names those that cannot."""
    several = eval_dataset if isinstance(eval_dataset, dict) else {None: eval_dataset}
    held: list[Rows] = []
    for name, one in several.items():
        try:
            held += [] if one is None else [_comparable(one, pool, processing_class)]
        except DataError as error:
            which = "eval_dataset" if name is None else f"eval_dataset {name!r}"
            if is_main():
                logger.warning("%s is not held against the pool, which may hold rows of it: %s", which, error)
    return held


def _comparable(dataset: Any, pool: Rows, processing_class: Any) -> Rows:
    """An evaluation set as rows of the pool's kind; ``DataError`` where there are none."""
    if not isinstance(dataset, (Rows, EncodedDataset, datasets.Dataset)):
        raise DataError(f"a {type(dataset).__name__} cannot be read; give a datasets.Dataset or Rows")
    is_tokens = pool.layout == "tokenized"
    if isinstance(dataset, datasets.Dataset) and "input_ids" in dataset.column_names and not is_tokens:
        try:  # tokens beside the text that they were made of
            return rows_of(dataset.remove_columns("input_ids"), processing_class)
        except DataError:
            raise DataError("its rows are tokens without their text, and the pool's are text") from None
    rows = _pool_of(dataset, processing_class)
    if (rows.layout == "tokenized") != is_tokens:
        raise DataError(f"its rows are in the layout {rows.layout}, the pool's in {pool.layout}")
    return rows


def rows_of(dataset: datasets.Dataset, processing_class: Any = None) -> Rows:
    """A dataset in memory as rows: an ``example_id`` column names them if there is one."""
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    id_column = "example_id" if "example_id" in dataset.column_names else None
    name = getattr(tokenizer, "name_or_path", None)
    return Rows(dataset, DatasetConfig(path="in memory", id_column=id_column, tokenizer=name))


def _encoded(dataset: Any, encoder: Encoder) -> Any:
    """The dataset, or each of several by name, encoded on access if its rows are text; any other as it is."""
    if isinstance(dataset, dict):
        return {name: _encoded(one, encoder) for name, one in dataset.items()}
    if isinstance(dataset, Rows):
        return EncodedDataset(dataset, encoder)
    if not isinstance(dataset, datasets.Dataset) or "input_ids" in dataset.column_names:
        return dataset
    return EncodedDataset(rows_of(dataset), encoder)
