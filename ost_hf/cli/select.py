"""``ost-hf select``: which rows are kept."""

from __future__ import annotations

import logging

from ost_hf.cli.config import RunConfig

logger = logging.getLogger(__name__)


def run(config: RunConfig) -> None:
    """Reads ``run_dir/scores`` and writes ``run_dir/selection.parquet``."""
    from ost_hf.parallel import barrier, is_main
    from ost_hf.scoring.score_table import ScoreTable
    from ost_hf.selection.selector import select, write_selection

    table = select(ScoreTable(config.folder / "scores").read(), config.selection)
    if is_main():
        write_selection(table, config.folder / "selection.parquet")
        logger.info("kept %d of %d rows", sum(table["kept"].to_pylist()), len(table))
    barrier()
