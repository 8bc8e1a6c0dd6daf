"""The score stage: the pool's score table in ``run_dir/scores``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ost_hf.runs.config import RunConfig
from ost_hf.scorers.registry import ANCHORS, SCORERS


def check(config: RunConfig) -> None:
    """Raises for what :func:`prepare` would refuse: a missing section, a model that is not there."""
    from ost_hf.models import find_model_class

    _require(config)
    assert config.proxy is not None
    find_model_class(config.proxy)


def prepare(config: RunConfig) -> Callable[[], None]:
    """Loads the rows, finds what repeats, and holds the run directory against the configuration."""
    from ost_hf.curate import request_of
    from ost_hf.data.anchors import load_anchors
    from ost_hf.data.rows import Rows
    from ost_hf.parallel import main_process_first
    from ost_hf.scoring.runner import open_job, run_job

    _require(config)
    assert config.pool is not None and config.proxy is not None
    with main_process_first():
        pool = Rows.load(config.pool)
        anchors = load_anchors(config.anchors) if config.anchors is not None else None
        held = config.evaluation is not None and config.duplicates.evaluation != "off"
        evaluation = (Rows.load(config.evaluation),) if held and config.evaluation is not None else ()
    request = request_of((pool, anchors), config.proxy, config.choice, config.folder, config.encoding, evaluation)
    job = open_job(request if config.reuse is None else replace(request, reuse=Path(config.reuse).expanduser()))

    def work() -> None:
        run_job(job)

    return work


def _require(config: RunConfig) -> None:
    needs_anchors = ANCHORS in SCORERS.find(config.scoring.scorer).needs
    config.require("pool", "proxy", *(["anchors"] if needs_anchors else []))
