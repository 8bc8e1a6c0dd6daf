"""``ost-hf select``: which rows are kept."""

from __future__ import annotations

import logging

from ost_hf.cli.config import RunConfig

logger = logging.getLogger(__name__)


def run(config: RunConfig) -> None:
    """Reads ``run_dir/scores`` and writes ``run_dir/selection.parquet``."""
    from ost_hf.data.rows import Rows
    from ost_hf.errors import DataError
    from ost_hf.parallel import barrier, is_main, main_process_first
    from ost_hf.scoring.anchor_scores import read_anchor_scores
    from ost_hf.scoring.runner import warn_of_other_settings
    from ost_hf.scoring.score_table import ScoreTable
    from ost_hf.selection.selector import select, write_selection

    scores = ScoreTable(config.folder / "scores")
    warn_of_other_settings(scores, config.scoring_near_the_cut)
    balance = None
    if config.selection.balance_by is not None:
        config.require("pool")
        assert config.pool is not None
        with main_process_first():
            rows = Rows.load(config.pool)
        pool = rows.dataset
        # Values are matched with scores by their place: it must be the pool that was scored.
        if scores.manifest()["identity"].get("pool") != rows.fingerprint:
            raise DataError("selection.balance_by: the pool has changed since it was scored; score it again")
        if config.selection.balance_by not in pool.column_names:
            raise DataError(
                f"selection.balance_by: the pool has no column {config.selection.balance_by!r}; "
                f"there are: {', '.join(pool.column_names)}"
            )
        balance = pool[config.selection.balance_by]
    table = select(scores.read(), config.selection, read_anchor_scores(scores), balance)
    if is_main():
        write_selection(table, config.folder / "selection.parquet")
        logger.info("kept %d of %d rows", sum(table["kept"].to_pylist()), len(table))
    barrier()
