"""How a trainer chooses its rows: read off what it was given when it is made, carried out before it trains."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import transformers

from ost_hf.curate import as_config, as_proxy, as_scores, choose, choose_into, request_of, strategy_of
from ost_hf.data.config import EncodingConfig
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.data.sources import rows_from, rows_in_memory
from ost_hf.errors import ConfigError, DataError
from ost_hf.parallel import free_memory, is_main, main_process_first, outside_deepspeed
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.runner import check_request, score_pool
from ost_hf.selection.columns import more_columns
from ost_hf.selection.kept import Selection, check_weights, read_selection
from ost_hf.settings import Section
from ost_hf.strategy import Choice, resolve
from ost_hf.tables.columns import SCHEMA
from ost_hf.tables.score_table import ScoreTable
from ost_hf.tables.selection_table import WEIGHT, SelectionTable
from ost_hf.training.config import SelectionArguments

logger = logging.getLogger(__name__)

# Keywords of the trainers, and fields of their configurations.
KEYWORDS = ("scores", "selection", "proxy", "anchors", "strategy", "scoring", "encoding", "duplicates")
_SOURCES = ("scores", "selection", "proxy")
# What may stand beside each of them.
_BELONGS = {
    "scores": ("strategy",),
    "selection": (),
    "proxy": ("anchors", "strategy", "scoring", "duplicates"),
}


@dataclass
class SelectionPlan:
    """Where a selection comes from: it is there, or is made of scores, or of a pool that is scored first.

    Attributes:
        encoding: How rows become tokens.
        ready: The selection, where it was given.
        scores: The scores to choose by, where they are there.
        request: What to score, where they are not.
        choice: How to choose.
        weighted: Whether the training weighs the loss of each row by the selection's ``ost_weight``.
    """

    encoding: EncodingConfig
    ready: Selection | None = None
    scores: ScoreTable | pa.Table | None = None
    request: ScoringRequest | None = None
    choice: Choice = field(default_factory=partial(resolve))
    weighted: bool = False

    def score(self) -> ScoreTable | None:
        """Scores the pool, if that is what the selection comes from; called on every process."""
        if self.request is not None and self.scores is None:
            with outside_deepspeed():
                self.scores = score_pool(self.request)
            free_memory()
        return self.scores if isinstance(self.scores, ScoreTable) else None

    def select(self) -> Selection:
        """The selection, for which the pool is scored first where it must be; called on every process."""
        if self.ready is None:
            self.score()
            assert self.scores is not None
            if self.request is None:
                self.ready = choose(self.scores, self.choice.selection)
            else:
                self.ready = choose_into(self.request.run_dir, self.scores, self.choice.selection, self.request.pool)
        return self.ready


def given_choices(args: Any, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """What was given about how rows are chosen: keywords of the trainer over fields of its configuration."""
    of_args = args.choosing() if isinstance(args, SelectionArguments) else {}
    of_keywords = {name: keywords[name] for name in KEYWORDS if keywords.get(name) is not None}
    # Another source given as a keyword is meant in place of the configuration's, and of what belongs to that one.
    source = next((name for name in _SOURCES if name in of_keywords), None)
    if source is not None:
        belongs = (*_BELONGS[source], "encoding")
        of_args = {name: value for name, value in of_args.items() if name in belongs}
    return of_args | of_keywords


def has_source(given: Mapping[str, Any]) -> bool:
    """Whether anything was given that a selection could come from."""
    return any(name in given for name in _SOURCES)


def plan_selection(
    args: transformers.TrainingArguments | None,
    given: Mapping[str, Any],
    train_dataset: Any,
    eval_dataset: Any,
    tokens_of: Any,
) -> SelectionPlan | None:
    """Reads off how a trainer is to choose, and refuses what could not work, in seconds.

    Args:
        args: The trainer's.
        given: As :func:`given_choices` has it.
        train_dataset: The pool.
        eval_dataset: What is held against a pool that is scored here.
        tokens_of: The tokenizer or processor that rows of tokens were made with.

    Returns:
        ``None`` if nothing of ours was given.

    Raises:
        ConfigError: If the arguments contradict each other.
        DataError: If scoring is asked for without rows that can be scored.
    """
    sources = [name for name in _SOURCES if name in given]
    _refuse_contradictions(sources, given)
    fields = args.selection_fields() if isinstance(args, SelectionArguments) else {}
    encoding = as_config(EncodingConfig, given.get("encoding"), "encoding")
    if not sources:
        if fields or getattr(args, "sampling", "shuffled") != "shuffled":
            raise ConfigError(
                "keep_ratio, keep_count, min_utility, drop_toxic, weighted_loss and sampling need something to choose "
                "by: give scores, a selection, or a proxy with anchors; leave them unset for a plain Trainer"
            )
        return None
    if train_dataset is None:
        raise ConfigError(f"{sources[0]} was given, but no train_dataset to select from")
    if "selection" in given:
        weighted = bool(fields.pop("weighted_loss", False))
        if fields:
            raise ConfigError(
                f"a selection says already what is kept; leave {', '.join(fields)} unset, or give scores instead of "
                "the selection"
            )
        return SelectionPlan(encoding, ready=_as_selection(given["selection"], args, weighted), weighted=weighted)
    if "scores" in given:
        return _plan_of_scores(given, fields, encoding)
    assert args is not None, "a source was given, and with it arguments"
    run_dir = Path(str(args.output_dir)) / "ost"
    return _plan_of_pool(given, fields, encoding, (train_dataset, eval_dataset, tokens_of), run_dir)


def _plan_of_scores(given: Mapping[str, Any], fields: Section, encoding: EncodingConfig) -> SelectionPlan:
    """How to choose by scores that are there, all of them and with the columns that the selection goes by."""
    scores = as_scores(given["scores"])
    choice = resolve(given.get("strategy") or strategy_of(scores), selection=fields)
    if isinstance(scores, ScoreTable):
        scores.read(columns=["row"])
        choice.selection.check(scores.column_names - set(SCHEMA.names))
    else:
        choice.selection.check(more_columns(scores))
    return SelectionPlan(encoding, scores=scores, choice=choice, weighted=choice.selection.weighted_loss)


def _plan_of_pool(
    given: Mapping[str, Any], fields: Section, encoding: EncodingConfig, sources: tuple[Any, Any, Any], run_dir: Path
) -> SelectionPlan:
    """How to score a pool, and choose by that; ``sources`` are training set, evaluation set and their tokenizer."""
    train_dataset, eval_dataset, tokens_of = sources
    choice = resolve(
        given.get("strategy"), scoring=given.get("scoring"), duplicates=given.get("duplicates"), selection=fields
    )
    proxy = as_proxy(given["proxy"])
    with main_process_first():
        pool = _pool_of(train_dataset, tokens_of)
        anchors = rows_from(given["anchors"], "anchors", tokens_of) if "anchors" in given else None
    held = _held_out(eval_dataset, pool, tokens_of) if choice.duplicates.evaluation != "off" else ()
    request = request_of((pool, anchors), proxy, choice, run_dir, encoding, held)
    check_request(request.scoring, anchors)
    if (columns := choice.scoring.columns) is not None:
        choice.selection.check(columns)
    return SelectionPlan(encoding, request=request, choice=choice, weighted=choice.selection.weighted_loss)


def _as_selection(given: Any, args: Any, weighted: bool) -> Selection:
    """A selection that was given, if it has what the order of the rows, and their weights, go by."""
    selection = _read(given)
    if getattr(args, "sampling", "shuffled") == "weighted" and "utility" not in selection.table.column_names:
        raise ConfigError("sampling 'weighted' needs utilities, and the selection has no column 'utility'")
    if weighted:
        check_weights(selection.table)
    elif WEIGHT in selection.table.column_names and is_main():
        logger.warning(
            "the selection has weights (column %s), and this training does not use them: set weighted_loss to weigh "
            "each row's loss", WEIGHT,
        )  # fmt: skip
    return selection


def _read(given: Any) -> Selection:
    """A selection that was given: in memory, as a table, or by its file or run directory."""
    if isinstance(given, Selection):
        return given
    if isinstance(given, SelectionTable):
        return Selection(given.table, given.metadata)
    if not isinstance(given, pa.Table):
        return read_selection(given)
    if "row" not in given.column_names:  # ids are enough for a training set that has them
        given = given.append_column("row", pa.nulls(len(given), pa.int64()))
    return Selection(given)


def _refuse_contradictions(sources: list[str], given: Mapping[str, Any]) -> None:
    """Raises ``ConfigError`` where arguments do not go together."""
    if len(sources) > 1:
        raise ConfigError(f"give one of scores, selection and proxy, not {' and '.join(sources)}")
    belongs = _BELONGS[sources[0]] if sources else ()
    if "anchors" in given and "anchors" not in belongs:
        raise ConfigError("scoring needs a proxy and anchors; anchors came without a proxy")
    for name in ("scoring", "duplicates", "strategy"):
        if name in given and name not in belongs:
            raise ConfigError(f"{name} says how a pool is scored here: give a proxy and anchors with it")
    if "encoding" in given and not sources:
        raise ConfigError("encoding needs rows to choose: give scores, a selection, or a proxy with anchors")


def _pool_of(train_dataset: Any, tokens_of: Any) -> Rows:
    if not isinstance(train_dataset, (Rows, EncodedDataset, datasets.Dataset)):
        raise DataError(
            f"a {type(train_dataset).__name__} cannot be scored; give a datasets.Dataset, Rows or an EncodedDataset, "
            "or score beforehand with ost_hf.score and pass the table as scores"
        )
    return rows_from(train_dataset, "train_dataset", tokens_of)


def _held_out(eval_dataset: Any, pool: Rows, tokens_of: Any) -> tuple[Rows, ...]:
    """The evaluation sets that can be held against the pool; the log names those that cannot."""
    several = eval_dataset if isinstance(eval_dataset, dict) else {None: eval_dataset}
    held: list[Rows] = []
    for name, one in several.items():
        try:
            held += [] if one is None else [_comparable(one, pool, tokens_of)]
        except DataError as error:
            which = "eval_dataset" if name is None else f"eval_dataset {name!r}"
            if is_main():
                logger.warning("%s is not held against the pool, which may hold rows of it: %s", which, error)
    return tuple(held)


def _comparable(dataset: Any, pool: Rows, tokens_of: Any) -> Rows:
    """An evaluation set as rows of the pool's kind; ``DataError`` where there are none."""
    if not isinstance(dataset, (Rows, EncodedDataset, datasets.Dataset)):
        raise DataError(f"a {type(dataset).__name__} cannot be read; give a datasets.Dataset or Rows")
    is_tokens = pool.layout == "tokenized"
    if isinstance(dataset, datasets.Dataset) and "input_ids" in dataset.column_names and not is_tokens:
        try:  # tokens beside the text that they were made of
            return rows_in_memory(dataset.remove_columns("input_ids"), tokens_of)
        except DataError:
            raise DataError("its rows are tokens without their text, and the pool's are text") from None
    rows = rows_from(dataset, "eval_dataset", tokens_of)
    if (rows.layout == "tokenized") != is_tokens:
        raise DataError(f"its rows are in the layout {rows.layout}, the pool's in {pool.layout}")
    return rows
