"""``ost-hf push``: the curated dataset to the Hub."""

from __future__ import annotations

from ost_hf.cli.config import RunConfig


def run(config: RunConfig) -> None:
    """Pushes kept rows, score table and card of a run directory."""
    from ost_hf.data.rows import Rows
    from ost_hf.hub.push import push_curated
    from ost_hf.parallel import barrier, is_main
    from ost_hf.scoring.score_table import ScoreTable
    from ost_hf.selection.selector import read_selection

    config.require("pool", "hub")
    assert config.pool is not None and config.hub is not None
    table = ScoreTable(config.folder / "scores")
    scores, selection = table.read(), read_selection(config.folder)
    if is_main():
        push_curated(Rows.load(config.pool), scores, selection, table.manifest(), config.hub)
    barrier()
