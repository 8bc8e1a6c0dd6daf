"""Finds the mistakes of later stages before the first one, which may take hours."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ost_hf.runs import launcher
from ost_hf.runs.config import RunConfig
from ost_hf.errors import ConfigError

# Of `training`: what sets up processes that only the launcher starts.
_OF_LAUNCHERS = ("deepspeed", "fsdp", "fsdp_config", "parallelism_config")


def preflight(config: RunConfig) -> None:
    """Checks what selecting, training and evaluating will ask for, as far as it is known before rows are scored.

    Data sets and models' configurations are loaded, no weights. Called on every process of a run.

    Raises:
        ConfigError: If a stage lacks its accelerate config, training refuses a field or a value, the selection needs
            what is not scored, or a library is not installed that evaluating takes.
        DataError: If rows cannot be loaded, or lack a column that is named.
        ModelError: If a model cannot be found or is none that can be trained.
    """
    for stage in launcher.LAUNCHED_STAGES:
        if launcher.wants_launch(config, stage):
            launcher.launch_command(config, stage)
    _check_selection(config)
    _check_training(config)
    _check_models(config)
    _check_columns(config)
    if config.evaluation is not None:
        from ost_hf.evaluation.metric import check_installed

        check_installed(config.evaluation.match)


def _check_selection(config: RunConfig) -> None:
    """Raises ``ConfigError`` where the scores will lack what the selection goes by."""
    from ost_hf.scorers.config import ALSO_READ

    scoring, selection = config.scoring, config.selection
    if scoring.scorer != "one_step" and scoring.scorer not in ALSO_READ:
        return  # a user's own: nothing is known of its columns
    reads = ALSO_READ.get(scoring.scorer, ("per_anchor", "group_by", "sketch_size"))
    sketches = "sketch_size" in reads and scoring.sketch_size > 0
    p_values = scoring.scorer == "one_step" and (scoring.second_look or scoring.per_anchor)
    over_groups = selection.aggregate is not None and selection.aggregate_over == "groups"
    over_anchors = selection.aggregate is not None and selection.aggregate_over == "anchors"
    for name, is_asked, is_there, remedy in (
        ("strategy setwise", selection.strategy == "setwise", sketches, "scoring.sketch_size (512, say)"),
        (
            "strategy diverse",
            selection.strategy == "diverse",
            sketches or scoring.scorer == "deita",
            "scoring.sketch_size (512, say), or scorer deita",
        ),
        ("drop_toxic", selection.drop_toxic, p_values, "scoring.second_look or scoring.per_anchor"),
        ("aggregate", over_groups, "group_by" in reads and scoring.group_by is not None, "scoring.group_by"),
        ("aggregate_over anchors", over_anchors, "per_anchor" in reads and scoring.per_anchor, "scoring.per_anchor"),
    ):
        if is_asked and not is_there:
            raise ConfigError(
                f"selection.{name} goes by what these scores will lack (scoring.scorer {scoring.scorer}, sketch_size "
                f"{scoring.sketch_size}, second_look {scoring.second_look}, per_anchor {scoring.per_anchor}, group_by "
                f"{scoring.group_by}): score with {remedy}, or select otherwise"
            )
    selection.check_aggregate(second_look=scoring.scorer == "one_step" and scoring.second_look)


def _check_training(config: RunConfig) -> None:
    """Raises ``ConfigError`` for a field or a value that the train stage would refuse, or too many devices."""
    from ost_hf.runs.train import check_devices, training_arguments

    given = dict(config.training)
    launches = launcher.wants_launch(config, "train")
    if launches:
        given = {key: value for key, value in given.items() if key not in _OF_LAUNCHERS}
    before = dict(os.environ)
    try:
        arguments = training_arguments(replace(config, training=given))
    finally:
        # Some releases' arguments leave there what a launcher would have said.
        os.environ.clear()
        os.environ.update(before)
    if not launches or launcher.processes_of(config, "train") == 1:
        check_devices(arguments.n_gpu)


def _check_models(config: RunConfig) -> None:
    """Raises ``ModelError`` for a model that is not there or of the wrong kind."""
    from ost_hf.runs.evaluate import evaluated_model
    from ost_hf.models import ModelConfig, find_model_class

    models: list[ModelConfig] = [model for model in (config.proxy, config.target) if model is not None]
    named = config.evaluation.model if config.evaluation is not None else None
    # What training will write is not there yet.
    if named is not None and (config.folder / "target").resolve() != Path(named).resolve():
        models.append(evaluated_model(config))
    for model in models:
        find_model_class(model)


def _check_columns(config: RunConfig) -> None:
    """Raises ``DataError`` for a column that is named and not there."""
    from ost_hf.runs.select import check_balance_by
    from ost_hf.data.rows import Rows
    from ost_hf.evaluation.evaluator import check_columns
    from ost_hf.parallel import main_process_first

    column = config.selection.balance_by
    with main_process_first():
        pool = Rows.load(config.pool) if config.pool is not None and column is not None else None
        tested = Rows.load(config.evaluation) if config.evaluation is not None else None
    if pool is not None and column is not None:
        check_balance_by(pool, column)
    if tested is not None and config.evaluation is not None:
        check_columns(tested, config.evaluation)
