"""The select stage: which rows are kept, in ``run_dir/selection.parquet``."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ost_hf.runs.config import RunConfig

logger = logging.getLogger(__name__)


def check(config: RunConfig) -> None:
    """Raises for what :func:`prepare` would refuse: what scores will lack, a column that the pool has not."""
    from ost_hf.curate import check_balance_by
    from ost_hf.data.rows import Rows
    from ost_hf.parallel import main_process_first

    if (columns := config.scoring.columns) is not None:  # of a user's own scorer nothing may be known
        config.selection.check(columns)
    if config.selection.balance_by is not None and config.pool is not None:
        with main_process_first():
            pool = Rows.load(config.pool)
        check_balance_by(pool, config.selection.balance_by)


def prepare(config: RunConfig) -> Callable[[], None]:
    """Chooses from ``run_dir/scores``."""
    from ost_hf.curate import choose, warn_of_other_settings
    from ost_hf.data.rows import Rows
    from ost_hf.parallel import barrier, is_main, main_process_first
    from ost_hf.reporting.summary import kept_in_words
    from ost_hf.tables.score_table import ScoreTable

    scores = ScoreTable(config.folder / "scores")
    warn_of_other_settings(scores, config.choice)
    pool = None
    if config.selection.balance_by is not None:
        config.require("pool")
        assert config.pool is not None
        with main_process_first():
            pool = Rows.load(config.pool)
    selection = choose(scores, config.selection, pool)

    def work() -> None:
        if is_main():
            selection.write(config.folder)
            column = config.selection.balance_by
            values = None if pool is None or column is None else list(pool.dataset[column])
            for line in kept_in_words(selection, column, values, scores.manifest().get("cost")):
                logger.info("%s", line)
        barrier()

    return work
