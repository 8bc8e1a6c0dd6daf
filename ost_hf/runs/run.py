"""``ost-hf run``: score, select, train and evaluate from one YAML."""

from __future__ import annotations

import logging

from ost_hf.runs import evaluate, launcher, score, select, train
from ost_hf.runs.config import RunConfig
from ost_hf.runs.preflight import preflight

logger = logging.getLogger(__name__)

STAGES = {"score": score.run, "select": select.run, "train": train.run, "evaluate": evaluate.run}


def run(config: RunConfig) -> None:
    """Runs the stages in order; evaluation only where the YAML has such a section.

    With an accelerate config, each stage has its own launch: processes that have trained under ZeRO-3
    cannot be trusted to load a whole model, and stages may want other numbers of processes.
    """
    config.require("pool", "proxy", "target")
    if config.evaluation is not None:
        config.require("evaluation")
    preflight(config)
    for stage in STAGES:
        if stage == "evaluate" and config.evaluation is None:
            logger.info("no evaluation section: done after training")
            continue
        run_stage(config, stage)


def run_stage(config: RunConfig, stage: str) -> None:
    """Runs one stage, in processes of its own where the configuration asks for them."""
    logger.info("stage: %s", stage)
    if launcher.wants_launch(config, stage):
        launcher.launch(config, stage)
    else:
        STAGES[stage](config)
        from ost_hf.parallel import free_memory

        # A trainer, its model and the optimizer's moments hold on to one another: the next stage may need their memory.
        free_memory()
