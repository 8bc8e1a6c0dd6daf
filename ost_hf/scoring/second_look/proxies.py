"""The proxies of the second look: copies of the base model, fine-tuned on rows that were found clean."""

from __future__ import annotations

import logging
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ost_hf.errors import ModelError
from ost_hf.models import ModelConfig, load_model, load_tensors, weights_dtype
from ost_hf.parallel import barrier, free_memory, is_main, outside_deepspeed, state
from ost_hf.proxy.model import build_proxy
from ost_hf.proxy.training import TrainingPlan, linear_schedule, shuffled_batches, train
from ost_hf.scoring.job import ScoringJob
from ost_hf.scoring.passes import ADAPTER_UPDATE, FULL_UPDATE
from ost_hf.scoring.second_look.options import SecondLookOptions
from ost_hf.scoring.tally import count

logger = logging.getLogger(__name__)

LOWER = "lower scoring.second_look.learning_rate"
MAX_GRAD_NORM = 1.0


def train_mature_proxy(folder: Path, name: str, seed: int, learnt_from: list[int], job: ScoringJob) -> None:
    """Fine-tunes the base model on some rows, unless that was finished before.

    Args:
        folder: Where it is kept once it is finished.
        name: What it is called while it trains.
        seed: Of the order of the rows.
        learnt_from: The rows.
        job: The pool, the base model, and how it is fine-tuned.

    Raises:
        ModelError: If the training diverges, or the weights are of a type that cannot be trained.
    """
    finished = is_kept(folder)
    barrier()
    if finished:
        return
    options: SecondLookOptions = job.config.stage_options
    model, parameters = load_trainable(job)
    steps = training_steps(len(learnt_from), options)
    batches = shuffled_batches(learnt_from, options.batch_size, steps, seed)
    # Language models in this library run without dropout: training mode would only add its cost to some.
    rates = linear_schedule(steps, options.learning_rate, rise=steps // 10)
    plan = TrainingPlan(batches, rates, max_grad_norm=MAX_GRAD_NORM, in_bfloat16=trained_in_bfloat16(job), name=name)
    _, losses = train(model, parameters, job.pool, plan)
    if not math.isfinite(losses[-1]):
        raise ModelError(f"the second look's training ended with a loss of {losses[-1]}: {LOWER}")
    logger.info("%s: %d steps on %d rows, loss %.3f -> %.3f", name, steps, len(learnt_from), losses[0], losses[-1])
    if is_main():
        # The processes share each step's rows: one of them counts.
        count(passes_of_a_step(options) * steps, trainings=1, steps=steps)
        # The embeddings of an adapted model are frozen; "auto" would ask the Hub whether they were resized.
        is_adapter = options.trainable == "adapter"
        model.save_pretrained(folder, **({"save_embedding_layers": False} if is_adapter else {}))
        _finished(folder).touch()
    barrier()
    # The optimizer's state is in a cycle of references: collected later, it would lie beside what comes next.
    del model, parameters
    free_memory()


def training_steps(rows: int, options: SecondLookOptions) -> int:
    """How many steps a proxy that learns from so many rows takes; a round's proxies share what is allowed."""
    steps = max(options.min_steps, round(options.epochs * rows / options.batch_size))
    return steps if options.max_steps is None else min(steps, max(1, options.max_steps // len(options.folds)))


def passes_of_a_step(options: SecondLookOptions) -> int:
    """What a step costs, in forward passes of a row."""
    return options.batch_size * (FULL_UPDATE if options.trainable == "all" else ADAPTER_UPDATE)


def trained_in_bfloat16(job: ScoringJob) -> bool:
    """Whether training is of mixed precision: a whole model's is where the proxy is of bfloat16.

    An adapter's base is of bfloat16 there itself.
    """
    return job.config.stage_options.trainable == "all" and weights_dtype(job.proxy) == torch.bfloat16


def load_mature_proxy(folder: Path, job: ScoringJob) -> Any:
    """What :func:`train_mature_proxy` left in a folder, in the proxy's precision, on this process's device."""
    if job.config.stage_options.trainable == "adapter":
        built = build_proxy(job.proxy)
        weights = load_tensors(folder / "adapter_model.safetensors")
        for name, parameter in built.parameters.items():
            parameter.data.copy_(weights[name.replace(".default.", ".")])
        return built.model
    return _load_frozen(replace(job.proxy, model=str(folder), revision=None))


def remove_mature_proxy(folder: Path) -> None:
    """Removes it; half a removal is not taken for a finished proxy."""
    _finished(folder).unlink(missing_ok=True)
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass  # of a run that removed it and was killed before it went on
    except OSError as error:
        logger.warning("%s could not be removed (%s): it is not needed any more", folder, error)


def is_kept(folder: Path) -> bool:
    """Whether a finished proxy is there."""
    return _finished(folder).exists()


def _finished(folder: Path) -> Path:
    return folder / "finished"


def check_trainable(model: Any, job: ScoringJob) -> None:
    """Raises ``ModelError`` where all weights are to be trained and some are no floating-point numbers."""
    for parameter in model.parameters():
        if job.config.stage_options.trainable == "all" and not parameter.is_floating_point():
            raise ModelError(
                f"{job.proxy.model} has weights of type {parameter.dtype}, which the second look cannot train; set "
                "scoring.second_look.trainable to adapter"
            )


def load_trainable(job: ScoringJob) -> tuple[Any, list[Any]]:
    """The base model on this process's device, in evaluation mode, and what of it is trained: float32, all of it."""
    if job.config.stage_options.trainable == "adapter":
        built = build_proxy(job.proxy)
        return built.model, list(built.parameters.values())
    model = _load_frozen(replace(job.proxy, dtype="float32"))
    check_trainable(model, job)
    return model, list(model.parameters())


def _load_frozen(source: ModelConfig) -> Any:
    with outside_deepspeed():
        model = load_model(source).to(state().device).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model
