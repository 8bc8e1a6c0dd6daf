"""``ost-hf train``: fine-tune the target on the kept rows."""

from __future__ import annotations

import hashlib
import json
import types
import typing
from dataclasses import asdict, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ost_hf.runs.config import RunConfig
from ost_hf.errors import ConfigError, RunDirectoryError, require_known
from ost_hf.files import feed, write_whole

if TYPE_CHECKING:
    import pyarrow as pa

# In the target's folder once its training has ended, with a hash of the selection that it was trained on.
_ENDED = "trained.json"


def run(config: RunConfig) -> None:
    """Trains on ``run_dir/selection.parquet`` and writes ``run_dir/target``."""
    from ost_hf.data.collator import Collator
    from ost_hf.data.encoding import EncodedDataset, Encoder
    from ost_hf.data.rows import Rows
    from ost_hf.models import load_model, load_processing_class
    from ost_hf.parallel import is_main, main_process_first
    from ost_hf.selection.selector import read_selection
    from ost_hf.training.trainer import OSTTrainer

    config.require("pool", "target")
    assert config.pool is not None and config.target is not None
    selection = read_selection(config.folder)
    _check_settings(selection, config)
    # Before the model: under ZeRO-3 these arguments are what makes it load in parts.
    args = training_arguments(config)
    check_devices(args.n_gpu)
    checkpoint = _checkpoint(args, config.folder / "target")
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
    ended = config.folder / "target" / _ENDED
    if is_main():
        ended.unlink(missing_ok=True)
    result = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    trainer.save_metrics("train", result.metrics)
    if is_main():
        facts = json.dumps({"selection": _hash_of_selection(config.folder)}) + "\n"
        write_whole(ended, lambda path: path.write_text(facts))


def _checkpoint(args: Any, target: Path) -> str | None:
    """The checkpoint to go on from, if that is asked for.

    Raises:
        RunDirectoryError: If there is none.
    """
    from transformers.trainer_utils import get_last_checkpoint

    asked = args.resume_from_checkpoint
    if asked is None or asked is False:
        return None
    found = get_last_checkpoint(str(target)) if asked is True and target.is_dir() else asked
    if found is True or found is None or not Path(found).is_dir():
        where = target if asked is True else found
        raise RunDirectoryError(
            f"training.resume_from_checkpoint is {asked!r}, but there is no checkpoint in {where}: one is written when "
            "training.save_strategy says; start again without resuming"
        )
    return str(found)


def check_trained(config: RunConfig) -> None:
    """Raises ``RunDirectoryError`` unless ``run_dir/target`` was trained to its end, on what is selected now."""
    target = config.folder / "target"
    ended = target / _ENDED
    if not ended.exists():
        raise RunDirectoryError(
            f"no fine-tuned model in {target}, or one whose training did not end: run the train stage, or set "
            "evaluation.model"
        )
    if json.loads(ended.read_text())["selection"] != _hash_of_selection(config.folder):
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


def _check_settings(selection: pa.Table, config: RunConfig) -> None:
    """Raises ``RunDirectoryError`` if the rows were chosen with other settings than the configuration has."""
    from ost_hf.tables.score_table import name_differences

    written = (selection.schema.metadata or {}).get(b"selection")
    if written is None:  # a table that was made elsewhere
        return
    differences = name_differences(json.loads(written), asdict(config.selection), "selection")
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
    given = {key: _typed(key, value, _kinds(hints[key])) for key, value in config.training.items()}
    if given.get("eval_strategy", "no") != "no":
        raise ConfigError(
            f"training.eval_strategy is {given['eval_strategy']!r}, but the train stage has no evaluation set: leave "
            "it at 'no'; the evaluate stage measures the target afterwards"
        )
    # Trainer finds accelerators by itself, but under a DeepSpeed launch it takes one for granted.
    given.setdefault("use_cpu", not on_accelerator())
    # Rows arrive encoded: there is no column to remove.
    given.setdefault("remove_unused_columns", False)
    try:
        args = OSTConfig(output_dir=str(config.folder / "target"), **given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"section training: {error}") from error
    sampling_order(args)
    return args


def _kinds(hint: Any) -> list[Any]:
    """The classes that a field's annotation names; what is no class stays as it is."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return [kind for part in typing.get_args(hint) for kind in _kinds(part)]
    return [origin or hint]


def _typed(key: str, value: Any, kinds: list[Any]) -> Any:
    """``value`` if it can be meant; ``TrainingArguments`` itself looks at few, and stumbles over others later."""
    plain = {type(None), bool, int, float, str, list, dict}
    enums = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Enum)]
    if not set(kinds) - set(enums) <= plain:
        return value
    if isinstance(value, float) and value.is_integer() and int in kinds and float not in kinds:
        return int(value)
    # Some fields take more than their annotation says, such as `resume_from_checkpoint: true`.
    takes_text = str in kinds or bool(enums)
    fits = type(value) in kinds or (takes_text and isinstance(value, (str, bool, int, float)))
    if fits or (type(value) is int and float in kinds):
        return value
    wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds if kind not in enums)
    raise ConfigError(f"training.{key} must be {wanted}, got {value!r}")
