"""All stages of a run, one after another; what later ones ask for is checked before the first."""

from __future__ import annotations

import logging

from ost_hf.runs import launcher
from ost_hf.runs.config import RunConfig
from ost_hf.runs.stage import find_stage, run_stage

logger = logging.getLogger(__name__)

ORDER = ("score", "select", "train", "evaluate")


def preflight(config: RunConfig, stages: tuple[str, ...] = ORDER) -> None:
    """Asks every stage whether it would work, before the first one, which may take hours.

    Raises:
        OSTError: What a stage would refuse, as far as that is known before rows are scored.
    """
    for stage in stages:
        if launcher.wants_launch(config, stage):
            launcher.launch_command(config, stage)
    for stage in stages:
        if not _is_left_out(config, stage):
            find_stage(stage).check(config)


def run_whole(config: RunConfig) -> None:
    """Runs the stages in order; evaluation only where the YAML has such a section.

    With an accelerate config, each stage has its own launch: processes that have trained under ZeRO-3
    cannot be trusted to load a whole model, and stages may want other numbers of processes.
    """
    config.require("pool", "proxy", "target")
    preflight(config)
    for stage in ORDER:
        if _is_left_out(config, stage):
            logger.info("no evaluation section: done after training")
            continue
        logger.info("stage: %s", stage)
        start_stage(config, stage)


def start_stage(config: RunConfig, stage: str) -> None:
    """Runs one stage, in processes of its own where the configuration asks for them."""
    if launcher.wants_launch(config, stage):
        launcher.launch(config, stage)
    else:
        run_stage(config, stage)


def _is_left_out(config: RunConfig, stage: str) -> bool:
    return stage == "evaluate" and config.evaluation is None
