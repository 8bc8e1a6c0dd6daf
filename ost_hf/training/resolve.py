"""Where a trainer's selection comes from: a table, scores, or a proxy that scores the training set first."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import transformers

from ost_hf.data.anchors import load_anchors
from ost_hf.data.config import AnchorConfig, DatasetConfig, EncodingConfig
from ost_hf.data.encoding import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.errors import ConfigError, DataError, require_known
from ost_hf.parallel import barrier, free_memory, is_main, outside_deepspeed
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.anchor_scores import read_anchor_scores
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.runner import score_pool
from ost_hf.selection.config import SelectionConfig
from ost_hf.selection.selector import read_selection, select, write_selection
from ost_hf.strategy import DEFAULT_STRATEGY, apply_strategy
from ost_hf.tables.score_table import ScoreTable
from ost_hf.training.config import selection_config

logger = logging.getLogger(__name__)


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
    strategy: str | None,
    scoring: ScoringConfig | Mapping[str, Any] | None,
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
    _refuse_contradictions(given, anchors, strategy, scoring, duplicates)
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
            args, wanted, train_dataset, eval_dataset, processing_class, proxy, anchors, strategy, scoring, encoding,
            duplicates,
        )  # fmt: skip
    assert scores is not None
    return _select_from(scores, wanted)


def _refuse_contradictions(
    given: list[str],
    anchors: Any,
    strategy: str | None,
    scoring: ScoringConfig | Mapping[str, Any] | None,
    duplicates: DuplicatesConfig | None,
) -> None:
    """Raises ``ConfigError`` where arguments do not go together; ``given`` names the selection's sources."""
    if len(given) > 1:
        raise ConfigError(f"give one of scores, selection and proxy, not {' and '.join(given)}")
    scores_here = "proxy" in given
    if scores_here != (anchors is not None):
        lacking, present = ("anchors", "a proxy") if anchors is None else ("a proxy", "anchors")
        raise ConfigError(f"scoring needs a proxy and anchors; {present} came without {lacking}")
    if duplicates is not None and not scores_here:
        raise ConfigError("duplicates are looked for before scoring: give a proxy and anchors with them")
    for name, value in (("strategy", strategy), ("scoring", scoring)):
        if value is not None and not scores_here:
            raise ConfigError(f"{name} says how a pool is scored here: give a proxy and anchors with it")
    if strategy is not None and isinstance(scoring, ScoringConfig):
        raise ConfigError(
            "a ScoringConfig is taken as it is, with no strategy's fields: leave strategy unset, or give scoring as a "
            "dict of the fields that are to differ from the strategy's"
        )


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
    strategy: str | None,
    scoring: ScoringConfig | Mapping[str, Any] | None,
    encoding: EncodingConfig | None,
    duplicates: DuplicatesConfig | None,
) -> pa.Table:
    """Scores into ``output_dir/ost`` and selects."""
    if not isinstance(proxy, (str, Path, ProxyConfig)):
        raise ConfigError(
            f"proxy must be a model's name, its folder or a ProxyConfig, got a {type(proxy).__name__}: it is loaded "
            "here, and freed before the training"
        )
    if not isinstance(anchors, (Rows, datasets.Dataset, AnchorConfig, EncodedDataset)):
        raise DataError(
            f"anchors must be a datasets.Dataset, Rows or AnchorConfig(path=...), got a {type(anchors).__name__}"
        )
    if not isinstance(scoring, ScoringConfig):
        sections = apply_strategy(strategy or DEFAULT_STRATEGY, {"scoring": dict(scoring or {})})
        scoring = _scoring_config(sections["scoring"])
        wanted = replace(wanted, **sections["selection"])
        duplicates = duplicates or DuplicatesConfig(**sections.get("duplicates", {}))
    pool = _pool_of(train_dataset, processing_class)
    overlap = anchors.overlap if isinstance(anchors, AnchorConfig) else "error"
    if isinstance(anchors, AnchorConfig):
        anchors = load_anchors(anchors)
    elif not isinstance(anchors, Rows):
        anchors = _pool_of(anchors, processing_class)
    run_dir = Path(args.output_dir) / "ost"
    proxy = proxy if isinstance(proxy, ProxyConfig) else ProxyConfig(model=str(proxy))
    scoring = scoring.near_the_cut(wanted.keep_ratio, wanted.other_cuts)
    duplicates = duplicates or DuplicatesConfig()
    evaluation = _held_out(eval_dataset, pool, processing_class) if duplicates.evaluation != "off" else None
    with outside_deepspeed():
        table = score_pool(run_dir, pool, anchors, proxy, scoring, encoding, overlap, duplicates, evaluation)
    free_memory()
    if is_main():  # one of the processes holds the scores
        write_selection(select(table.read(), wanted, read_anchor_scores(table)), run_dir / "selection.parquet")
    barrier()
    return read_selection(run_dir)


def _scoring_config(fields: Mapping[str, Any]) -> ScoringConfig:
    require_known("field of scoring", fields, [each.name for each in dataclass_fields(ScoringConfig)])
    return ScoringConfig(**fields)


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
