"""``ost-hf score``: the pool's score table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ost_hf.runs.config import RunConfig

if TYPE_CHECKING:
    from ost_hf.data.rows import Rows


def run(config: RunConfig) -> None:
    """Scores the pool into ``run_dir/scores``."""
    from ost_hf.data.anchors import load_anchors
    from ost_hf.data.rows import Rows
    from ost_hf.parallel import main_process_first
    from ost_hf.scorers.base import ANCHORS, find_scorer
    from ost_hf.scoring.runner import score_pool

    config.require("pool", "proxy", *(["anchors"] if ANCHORS in find_scorer(config.scoring.scorer).needs else []))
    assert config.pool is not None and config.proxy is not None
    scoring = config.scoring.near_the_cut(config.selection.keep_ratio, config.selection.other_cuts)
    with main_process_first():
        pool = Rows.load(config.pool)
        anchors = load_anchors(config.anchors) if config.anchors is not None else None
        evaluation = evaluation_rows(config)
    overlap = config.anchors.overlap if config.anchors is not None else "error"
    score_pool(
        config.folder,
        pool,
        anchors,
        config.proxy,
        scoring,
        config.encoding,
        overlap,
        duplicates=config.duplicates,
        evaluation=evaluation,
    )


def evaluation_rows(config: RunConfig) -> Rows | None:
    """The evaluation set, where there is one and the pool is to be held against it."""
    from ost_hf.data.rows import Rows

    if config.evaluation is None or config.duplicates.evaluation == "off":
        return None
    return Rows.load(config.evaluation)
