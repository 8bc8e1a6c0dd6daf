"""``ost-hf select``: which rows are kept."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ost_hf.runs.config import RunConfig
from ost_hf.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from ost_hf.data.rows import Rows

logger = logging.getLogger(__name__)

# So many values of a column fit into a line of the log.
_VALUES = 10


def run(config: RunConfig) -> None:
    """Reads ``run_dir/scores`` and writes ``run_dir/selection.parquet``."""
    from ost_hf.data.rows import Rows
    from ost_hf.parallel import barrier, is_main, main_process_first
    from ost_hf.scoring.anchor_scores import read_anchor_scores
    from ost_hf.scoring.runner import warn_of_other_settings
    from ost_hf.tables.score_table import ScoreTable
    from ost_hf.selection.selector import select, write_selection

    scores = ScoreTable(config.folder / "scores")
    warn_of_other_settings(scores, config.scoring_near_the_cut)
    balance = None
    if config.selection.balance_by is not None:
        config.require("pool")
        assert config.pool is not None
        with main_process_first():
            rows = Rows.load(config.pool)
        # Values are matched with scores by their place: it must be the pool that was scored.
        if scores.manifest()["identity"].get("pool") != rows.fingerprint:
            raise DataError("selection.balance_by: the pool has changed since it was scored; score it again")
        check_balance_by(rows, config.selection.balance_by)
        balance = rows.dataset[config.selection.balance_by]
    table = select(scores.read(), config.selection, read_anchor_scores(scores), balance)
    if is_main():
        write_selection(table, config.folder / "selection.parquet")
        _tell(table, config.selection.balance_by, balance)
    barrier()


def check_balance_by(pool: Rows, column: str) -> None:
    """Raises ``DataError`` if the pool lacks the column of ``selection.balance_by``."""
    names = pool.dataset.column_names
    if column not in names:
        raise DataError(f"selection.balance_by: the pool has no column {column!r}; there are: {', '.join(names)}")


def _tell(table: pa.Table, balance_by: str | None, values: Sequence[Any] | None) -> None:
    """Logs what is kept, the verdicts, and what is kept of each value of ``balance_by``."""
    kept = table["kept"].to_pylist()
    logger.info("kept %d of %d rows", sum(kept), len(table))
    if "verdict" in table.column_names:
        found = Counter(verdict for verdict in table["verdict"].to_pylist() if verdict is not None)
        counts = ", ".join(f"{found[name]} {name}" for name in ("toxic", "useful", "uncertain"))
        logger.info("verdicts of %d scored rows: %s", found.total(), counts)
    if values is not None:
        of_row = list(values)  # a dataset's column reads each place by itself
        names = [str(of_row[row]) for row in table["row"].to_pylist()]
        of_kept = Counter(name for name, is_kept in zip(names, kept, strict=True) if is_kept)
        totals = Counter(names).most_common()
        parts = [f"{name} {of_kept[name]} of {total}" for name, total in totals[:_VALUES]]
        more = [f"and {len(totals) - _VALUES} more values"] if len(totals) > _VALUES else []
        logger.info("kept by %s: %s", balance_by, ", ".join(parts + more))
