"""The train stage: the target, fine-tuned on the kept rows, in ``run_dir/target``."""

from __future__ import annotations

import hashlib
import json
import os
import typing
from collections.abc import Callable
from dataclasses import fields, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ost_hf.errors import ConfigError, RunDirectoryError, require_known
from ost_hf.files import feed, write_json
from ost_hf.runs import launcher
from ost_hf.runs.config import RunConfig
from ost_hf.settings import as_mapping, kinds_of, name_differences, typed

if TYPE_CHECKING:
    from ost_hf.selection.kept import Selection

# In the target's folder: a hash of the selection that it is trained on, and whether its training has ended.
_TRAINED = "trained.json"
# Of `training`: what sets up processes that only the launcher starts.
_OF_LAUNCHERS = ("deepspeed", "fsdp", "fsdp_config", "parallelism_config")


def check(config: RunConfig) -> None:
    """Raises for what :func:`prepare` would refuse: a field or a value, too many devices, a model that is not there."""
    from ost_hf.models import find_model_class

    config.require("pool", "target")
    assert config.target is not None
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
    find_model_class(config.target)


def prepare(config: RunConfig) -> Callable[[], None]:
    """Reads the selection, loads rows and target, and makes the trainer."""
    from ost_hf.data.collator import Collator
    from ost_hf.data.encoding import Encoder
    from ost_hf.data.encoding.dataset import EncodedDataset
    from ost_hf.data.rows import Rows
    from ost_hf.models import load_model, load_processing_class
    from ost_hf.parallel import main_process_first
    from ost_hf.selection.kept import read_selection
    from ost_hf.training.trainer import OSTTrainer

    config.require("pool", "target")
    assert config.pool is not None and config.target is not None
    selection = read_selection(config.folder)
    _check_settings(selection, config)
    # Before the model: under ZeRO-3 these arguments are what makes it load in parts.
    args = training_arguments(config)
    check_devices(args.n_gpu)
    checkpoint = _checkpoint(args, config.folder)
    with main_process_first():
        pool = Rows.load(config.pool)
    processing_class = load_processing_class(config.target)
    trainer = OSTTrainer(
        model=load_model(config.target),
        args=args,
        data_collator=Collator.of(processing_class),
        train_dataset=EncodedDataset(pool, Encoder(processing_class, config.encoding)),
        processing_class=processing_class,
        selection=selection,
    )
    trainer.select()

    def work() -> None:
        _train(trainer, checkpoint, config)

    return work


def _train(trainer: Any, checkpoint: str | None, config: RunConfig) -> None:
    from ost_hf.parallel import is_main

    note, facts = config.folder / "target" / _TRAINED, {"selection": _hash_of_selection(config.folder)}
    if is_main():
        write_json(note, {**facts, "ended": False})
    result = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    trainer.save_metrics("train", result.metrics)
    if is_main():
        write_json(note, {**facts, "ended": True})


def _checkpoint(args: Any, run_dir: Path) -> str | None:
    """The checkpoint to go on from, if that is asked for.

    Raises:
        RunDirectoryError: If there is none, or it was trained on another selection.
    """
    from transformers.trainer_utils import get_last_checkpoint

    asked, target = args.resume_from_checkpoint, run_dir / "target"
    if asked is None or asked is False:
        return None
    found = get_last_checkpoint(str(target)) if asked is True and target.is_dir() else asked
    if found is True or found is None or not Path(found).is_dir():
        where = target if asked is True else found
        raise RunDirectoryError(
            f"training.resume_from_checkpoint is {asked!r}, but there is no checkpoint in {where}: one is written when "
            "training.save_strategy says; start again without resuming"
        )
    if asked is True and _trained(target).get("selection") != _hash_of_selection(run_dir):
        raise RunDirectoryError(
            f"{found} was trained on another selection than {run_dir / 'selection.parquet'} holds now: start again "
            "without training.resume_from_checkpoint, or name the checkpoint in it to go on all the same"
        )
    return str(found)


def _trained(target: Path) -> dict[str, Any]:
    """What is noted of a target's training; nothing where none was begun."""
    note = target / _TRAINED
    return json.loads(note.read_text()) if note.exists() else {}


def check_trained(config: RunConfig) -> None:
    """Raises ``RunDirectoryError`` unless ``run_dir/target`` was trained to its end, on what is selected now."""
    target = config.folder / "target"
    noted = _trained(target)
    if not noted.get("ended"):
        raise RunDirectoryError(
            f"no fine-tuned model in {target}, or one whose training did not end: run the train stage, or set "
            "evaluation.model"
        )
    if noted["selection"] != _hash_of_selection(config.folder):
        raise RunDirectoryError(
            f"{target} was trained on another selection than {config.folder / 'selection.parquet'} holds now: run the "
            f"train stage again, or set evaluation.model to {target} to evaluate it as it is"
        )


def _hash_of_selection(run_dir: Path) -> str | None:
    """A hash of the selection table's file; ``None`` where it was removed."""
    file = run_dir / "selection.parquet"
    if not file.exists():
        return None
    digest = hashlib.blake2b(digest_size=16)
    feed(digest, file)
    return digest.hexdigest()


def check_devices(visible: int) -> None:
    """Refuses several devices for one process.

    Args:
        visible: ``n_gpu`` of the training arguments: one at most where each process has a device of its own.

    Raises:
        ConfigError: If there are more, for the Trainer would take them all.
    """
    if visible > 1:
        raise ConfigError(
            f"{visible} devices are visible to one process: the Trainer would wrap the model in DataParallel and "
            f"multiply the batch by {visible}. Train with a process for each (accelerate.train: "
            f"accelerate_configs/multi_gpu.yaml, accelerate.num_processes: {visible}), or with one device "
            "(CUDA_VISIBLE_DEVICES=0)"
        )


def _check_settings(selection: Selection, config: RunConfig) -> None:
    """Raises ``RunDirectoryError`` if the rows were chosen with other settings than the configuration has."""
    written = dict(selection.metadata.settings)
    if not written:  # a table that was made elsewhere
        return
    differences = name_differences(written, as_mapping(config.selection), "selection")
    if differences:
        raise RunDirectoryError(
            f"{config.folder / 'selection.parquet'} was made with other settings: {'; '.join(differences)}. "
            "Run the select stage again"
        )


def training_arguments(config: RunConfig) -> Any:
    """``OSTConfig`` from the ``training`` section.

    Raises:
        ConfigError: If ``TrainingArguments`` knows no such field, or a value is of another type or refused.
    """
    from ost_hf.parallel import on_accelerator
    from ost_hf.training.config import OSTConfig, sampling_order

    require_known("field of section training", config.training, [item.name for item in fields(OSTConfig) if item.init])
    hints = typing.get_type_hints(OSTConfig)
    given = {key: _typed(key, value, hints[key]) for key, value in config.training.items()}
    if given.get("eval_strategy", "no") != "no":
        raise ConfigError(
            f"training.eval_strategy is {given['eval_strategy']!r}, but the train stage has no evaluation set: leave "
            "it at 'no'; the evaluate stage measures the target afterwards"
        )
    # Trainer finds accelerators by itself, but under a DeepSpeed launch it takes one for granted.
    given.setdefault("use_cpu", not on_accelerator())
    given["weighted_loss"] = config.selection.weighted_loss
    # Rows arrive encoded: there is no column to remove.
    given.setdefault("remove_unused_columns", False)
    try:
        args = OSTConfig(output_dir=str(config.folder / "target"), **given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"section training: {error}") from error
    sampling_order(args)
    return args


def _typed(key: str, value: Any, hint: Any) -> Any:
    """``value`` if it can be meant; ``TrainingArguments`` itself looks at few, and stumbles over others later."""
    kinds = kinds_of(hint)
    # Some fields take more than their annotation says, such as `resume_from_checkpoint: true`.
    if str in kinds or any(isinstance(kind, type) and issubclass(kind, Enum) for kind in kinds):
        kinds = [*kinds, bool, int, float]
    return value if type(value) is int and float in kinds else typed(f"training.{key}", value, kinds)
