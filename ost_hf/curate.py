"""Score a pool and select from it: the two verbs, written once, for Python, trainers and runs.

>>> import ost_hf
>>> scores = ost_hf.score("pool.jsonl", "anchors.jsonl", proxy="Qwen/Qwen3-0.6B", output_dir="runs/a")  # doctest: +SKIP
>>> kept = ost_hf.select(scores, keep_ratio=0.3)  # doctest: +SKIP
>>> kept.rows("pool.jsonl")  # doctest: +SKIP
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import datasets
import pyarrow as pa

from ost_hf.data.config import EncodingConfig
from ost_hf.data.rows import Rows
from ost_hf.data.sources import rows_from
from ost_hf.errors import ConfigError, DataError, require_known
from ost_hf.parallel import barrier, is_main, main_process_first
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.identity import other_settings
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.runner import score_pool
from ost_hf.selection.config import SelectionConfig
from ost_hf.selection.kept import Selection, read_selection
from ost_hf.selection.selector import select_rows
from ost_hf.settings import build
from ost_hf.strategy import Choice, resolve
from ost_hf.tables.anchor_table import read_anchor_scores
from ost_hf.tables.score_table import ScoreMetadata, ScoreTable

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger(__name__)


class ScoreSettings(TypedDict, total=False):
    """What else :func:`score` takes.

    Attributes:
        scoring: Fields of ``ScoringConfig``: ``{"one_step": {"utility": "raw"}}``, say.
        duplicates: Fields of ``DuplicatesConfig``.
        encoding: Fields of ``EncodingConfig``.
        evaluation: The set that a model will be evaluated on, or a list of sets: copies in the pool are refused.
    """

    scoring: Any
    duplicates: Any
    encoding: Any
    evaluation: Any


def score(
    pool: Any,
    anchors: Any = None,
    *,
    proxy: Any,
    output_dir: str | Path,
    strategy: str | None = None,
    reuse: str | Path | None = None,
    **settings: Unpack[ScoreSettings],
) -> ScoreTable:
    """Scores every row of a pool. What was killed goes on where it stopped, when it is called again.

    Args:
        pool: The candidates: a name on the Hub, a file, a ``datasets.Dataset``, a list of rows, ``Rows``.
        anchors: A few clean rows of the task, in any of these forms. Scorers that ask no anchors do without.
        proxy: A small model's name or folder, or a ``ProxyConfig``, or a mapping of its fields.
        output_dir: The run directory: scores go into ``output_dir/scores``, the proxy into ``output_dir/proxy``.
        strategy: ``auto`` (default), ``thorough``, ``one_step`` or ``paper``.
        reuse: The run directory of an earlier run with the same settings and ``scoring={"store": True}``: its stored
            values are asked, and only rows that it did not score are scored. Anchors may be others.
        **settings: :class:`ScoreSettings`.

    Returns:
        The score table, which prints well and has ``to_pandas()`` and ``to_dataset()``.

    Raises:
        ConfigError: For an unknown field or a value that is not allowed.
        DataError: If rows cannot be used, or repeat one another where they may not.
        RunDirectoryError: If ``output_dir`` holds scores of another pool or configuration, or ``reuse`` was made with
            another one.

    Example:
        >>> scores = ost_hf.score(pool, anchors, proxy="Qwen/Qwen3-0.6B", output_dir="runs/a")
        >>> scores.to_pandas().sort_values("utility").head()  # doctest: +SKIP
    """
    require_known("argument of score", settings, ScoreSettings.__annotations__)
    choice = resolve(strategy, scoring=settings.get("scoring"), duplicates=settings.get("duplicates"))
    with main_process_first():
        sources = rows_from(pool), None if anchors is None else rows_from(anchors, "anchors")
        evaluation = evaluation_rows(settings.get("evaluation"))
    encoding = as_config(EncodingConfig, settings.get("encoding"), "encoding")
    request = request_of(sources, as_proxy(proxy), choice, Path(output_dir), encoding, evaluation)
    return score_pool(request if reuse is None else replace(request, reuse=Path(reuse).expanduser()))


def select(scores: Any, *, strategy: str | None = None, pool: Any = None, **selection: Any) -> Selection:
    """Chooses the rows to keep from scores.

    Args:
        scores: A :class:`ScoreTable`, a run directory, or a table of scores in memory (a ``datasets.Dataset`` too).
        strategy: As for :func:`score`; by default the one that the table was scored under.
        pool: The rows that were scored; only ``balance_by`` reads them.
        **selection: Fields of ``SelectionConfig``: ``keep_ratio=0.3``, ``drop_toxic=True``, ``order="top"``, ...

    Returns:
        The selection, with ``rows(pool)``, ``to_pandas()``, ``to_dataset()``, ``write(path)``; its ``explanation`` says
        what was found and what decided.

    Raises:
        ConfigError: For an unknown field, or one that the scores lack the columns for.
        DataError: If nothing would be kept.
        RunDirectoryError: If there are no scores, or not of all rows.

    Example:
        >>> kept = ost_hf.select("runs/a", keep_ratio=0.3)
        >>> kept.rows(pool)  # doctest: +SKIP
        Dataset({features: ['prompt', 'completion'], num_rows: 900})
    """
    table = as_scores(scores)
    choice = resolve(strategy or strategy_of(table), selection=selection)
    return choose(table, choice.selection, None if pool is None else rows_from(pool))


def request_of(
    sources: tuple[Rows, Rows | None],
    proxy: ProxyConfig,
    choice: Choice,
    run_dir: Path,
    encoding: EncodingConfig,
    evaluation: tuple[Rows, ...] = (),
) -> ScoringRequest:
    """What is to be scored, of resolved settings; ``sources`` are the pool and the anchors."""
    pool, anchors = sources
    # An evaluation set that nothing is held against need not be known.
    held = evaluation if choice.duplicates.evaluation != "off" else ()
    return ScoringRequest(
        Path(run_dir), pool, anchors, proxy, choice.scoring, encoding, choice.duplicates, held, choice.strategy
    )


def choose(scores: ScoreTable | pa.Table, selection: SelectionConfig, pool: Rows | None = None) -> Selection:
    """Selects from a score table, in a folder or in memory.

    Args:
        scores: The scores.
        selection: How much is kept, and in which order.
        pool: The rows that were scored, where ``balance_by`` asks for a column of theirs.

    Raises:
        DataError: If the pool is not the one that was scored, or lacks the column; or nothing would be kept.
    """
    table = scores.read() if isinstance(scores, ScoreTable) else scores
    anchors = read_anchor_scores(scores) if isinstance(scores, ScoreTable) else None
    balance = None
    if selection.balance_by is not None and pool is not None:
        # Values are matched with scores by their place: it must be the pool that was scored.
        if isinstance(scores, ScoreTable) and scores.manifest()["identity"].get("pool") != pool.fingerprint:
            raise DataError("selection.balance_by: the pool has changed since it was scored; score it again")
        check_balance_by(pool, selection.balance_by)
        balance = pool.dataset[selection.balance_by]
    return select_rows(table, selection, anchors, balance)


def as_scores(scores: Any) -> ScoreTable | pa.Table:
    """The scores that a user's argument means: a table in a folder or in memory, as a ``datasets.Dataset`` too."""
    if isinstance(scores, datasets.Dataset):
        return scores.with_format("arrow")[:]
    return scores if isinstance(scores, (ScoreTable, pa.Table)) else ScoreTable.at(scores)


def choose_into(
    run_dir: Path, scores: ScoreTable | pa.Table, selection: SelectionConfig, pool: Rows | None = None
) -> Selection:
    """Selects as :func:`choose` does, into a run directory; called on every process of a run.

    One of the processes holds the scores, and all read the selection.
    """
    if is_main():
        choose(scores, selection, pool).write(run_dir)
    barrier()
    return read_selection(run_dir)


def check_balance_by(pool: Rows, column: str) -> None:
    """Raises ``DataError`` if the pool lacks the column of ``selection.balance_by``."""
    names = pool.dataset.column_names
    if column not in names:
        raise DataError(f"selection.balance_by: the pool has no column {column!r}; there are: {', '.join(names)}")


def strategy_of(scores: ScoreTable | pa.Table) -> str | None:
    """The strategy that a table was scored under; ``None`` where none was named."""
    return (scores.metadata if isinstance(scores, ScoreTable) else ScoreMetadata.of(scores)).strategy


def warn_of_other_settings(table: ScoreTable, choice: Choice) -> None:
    """Says where a score table was made with other settings than a choice has: its replay would differ."""
    differences = other_settings(table, choice.scoring)
    if differences and is_main():
        logger.warning(
            "%s was scored with other settings than this configuration has: %s. The selection goes by those scores",
            table.folder, "; ".join(differences),
        )  # fmt: skip


def evaluation_rows(evaluation: Any) -> tuple[Rows, ...]:
    """The evaluation sets that a user's argument means: none, one, or several."""
    if evaluation is None:
        return ()
    # A list of rows is one set, a list of sets is several.
    several = isinstance(evaluation, (list, tuple)) and not all(isinstance(each, Mapping) for each in evaluation)
    return tuple(rows_from(each, "evaluation") for each in (evaluation if several else [evaluation]))


def as_proxy(proxy: Any) -> ProxyConfig:
    """The proxy that a user's argument means: a name, a folder, a configuration, or a mapping of its fields."""
    if isinstance(proxy, (str, Path)):
        return ProxyConfig(model=str(proxy))
    if isinstance(proxy, (ProxyConfig, Mapping)):
        return as_config(ProxyConfig, proxy, "proxy")
    raise ConfigError(
        f"proxy must be a model's name, its folder, a ProxyConfig or a mapping of its fields, got a "
        f"{type(proxy).__name__}: it is loaded here, and freed before the training"
    )


def as_config(cls: Any, value: Any, where: str) -> Any:
    """A section's configuration: as it was given, of a mapping of its fields, or its defaults."""
    return value if isinstance(value, cls) else build(cls, value or {}, where)
