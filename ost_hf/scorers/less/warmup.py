"""The warm-up of LESS: a fresh adapter, and its weights and Adam moments after every epoch."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.errors import ModelError
from ost_hf.files import write_json
from ost_hf.functional.lora import Tensors
from ost_hf.functional.step import AdamState
from ost_hf.models import load_tensors
from ost_hf.parallel import barrier, is_main
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import Proxy
from ost_hf.proxy.training import TrainingPlan, linear_schedule, shuffled_batches, train
from ost_hf.proxy.warmup import moments_of, warmup_rows

logger = logging.getLogger(__name__)

# Of the steps, with a rising rate: the paper's schedule, which then falls to zero in a straight line.
_RISE = 0.03
_COMPLETE = "checkpoints.json"


@dataclass(frozen=True)
class Checkpoint:
    """An adapter in training: weights and moments by parameter name, and the mean learning rate of its epoch."""

    weights: Tensors
    adam: AdamState
    learning_rate: float


def stored_checkpoints(
    folder: Path | None, proxy: Proxy, pool: EncodedDataset, exclude: Collection[int], count: int
) -> list[Checkpoint]:
    """The checkpoints of this run: those that lie in a folder, or new ones, which are then stored there.

    Trained again, on another device or by other processes, they would not be quite the same, and one table would hold
    the scores of two judges.

    Args:
        folder: Where they are kept; ``None`` to keep none.
        proxy: As in :func:`train_checkpoints`.
        pool: The same.
        exclude: The same.
        count: The same.
    """
    stored = folder is not None and (folder / _COMPLETE).exists()
    barrier()
    if stored:
        assert folder is not None
        return _read(folder, proxy)
    checkpoints = train_checkpoints(proxy, pool, exclude, count)
    if folder is not None and is_main():
        _write(folder, checkpoints)
    barrier()
    return checkpoints


def _write(folder: Path, checkpoints: Sequence[Checkpoint]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, checkpoint in enumerate(checkpoints):
        parts = {"weight": checkpoint.weights, "exp_avg": checkpoint.adam.exp_avg, "v": checkpoint.adam.exp_avg_sq}
        tensors = {f"{part}.{name}": value.contiguous() for part, of in parts.items() for name, value in of.items()}
        save_file(tensors, folder / f"{number}.safetensors")
    facts = [{"step": checkpoint.adam.step, "learning_rate": checkpoint.learning_rate} for checkpoint in checkpoints]
    # Last: a folder that has it is complete.
    write_json(folder / _COMPLETE, facts)


def _read(folder: Path, proxy: Proxy) -> list[Checkpoint]:
    checkpoints = []
    for number, fact in enumerate(json.loads((folder / _COMPLETE).read_text())):
        tensors = load_tensors(folder / f"{number}.safetensors")
        weights, exp_avg, v = (
            {name: tensors[f"{part}.{name}"] for name in proxy.parameters} for part in ("weight", "exp_avg", "v")
        )
        checkpoints.append(Checkpoint(weights, AdamState(exp_avg, v, fact["step"]), fact["learning_rate"]))
    return checkpoints


def train_checkpoints(
    proxy: Proxy, pool: EncodedDataset, exclude: Collection[int], count: int, micro_batch_tokens: int | None = None
) -> list[Checkpoint]:
    """Trains a fresh adapter on the warm-up rows; the proxy's own adapter stays as it is.

    An epoch is a pass over the rows, or more where ``warmup_min_steps`` asks for more steps. The result is the same
    on every process of a run.

    Args:
        proxy: Its base model, and of its configuration the warm-up's rows, batch size, learning rate and seed.
        pool: The candidates, encoded for the proxy.
        exclude: Rows not to use (anchors found in the pool).
        count: How many epochs, each with a checkpoint.
        micro_batch_tokens: As in :func:`ost_hf.proxy.training.TrainingPlan`.

    Returns:
        The checkpoints in the order of training.

    Raises:
        ModelError: If the proxy's ``warmup_fraction`` is 0.
        DataError: If no row of the pool can be used.
    """
    config = proxy.config
    rows, epoch, plan = _plan(config, pool, exclude, count, micro_batch_tokens)
    checkpoints: list[Checkpoint] = []

    def after_step(optimizer: torch.optim.Optimizer) -> None:
        adam = moments_of(proxy, optimizer)
        if adam.step % epoch:
            return
        moments = AdamState(_copied(adam.exp_avg), _copied(adam.exp_avg_sq), adam.step)
        rate = sum(plan.learning_rates[adam.step - epoch : adam.step]) / epoch
        checkpoints.append(Checkpoint(_copied(proxy.parameters), moments, rate))

    with holding(proxy, fresh_weights(proxy)):
        _, losses = train(proxy.model, proxy.parameters.values(), pool, plan, after_step)
    size = f"{count} checkpoints, {epoch} steps each, on {len(rows)} rows"
    logger.info("LESS: %s, loss %.3f -> %.3f", size, losses[0], losses[-1])
    return checkpoints


def _plan(
    config: ProxyConfig, pool: EncodedDataset, exclude: Collection[int], count: int, micro_batch_tokens: int | None
) -> tuple[list[int], int, TrainingPlan]:
    """The warm-up rows, the steps of an epoch, and what is done in all epochs."""
    if config.warmup_fraction == 0:
        raise ModelError(
            "the less scorer trains checkpoints on the warm-up rows, but proxy.warmup_fraction is 0: set it to a share "
            "of the pool (the paper's 0.05)"
        )
    rows = warmup_rows(pool, config.warmup_fraction, set(exclude), config.seed)
    epoch = max(math.ceil(len(rows) / config.warmup_batch_size), math.ceil(config.warmup_min_steps / count))
    batches = shuffled_batches(rows, config.warmup_batch_size, count * epoch, config.seed + 1)
    rates = linear_schedule(len(batches), config.warmup_learning_rate, rise=math.ceil(_RISE * len(batches)))
    return rows, epoch, TrainingPlan(batches, rates, micro_batch_tokens, name="LESS warm-up")


def fresh_weights(proxy: Proxy) -> Tensors:
    """LoRA's initial weights (A random, B zero), drawn on the CPU: the same on every device and process."""
    generator = torch.Generator().manual_seed(proxy.config.seed)
    weights: Tensors = {}
    for pair in proxy.pairs:
        drawn = torch.empty(pair.a.weight.shape)
        nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
        weights[pair.name_a] = drawn.to(pair.a.weight)
        weights[pair.name_b] = torch.zeros_like(pair.b.weight)
    return weights


@contextmanager
def holding(proxy: Proxy, weights: Tensors) -> Iterator[None]:
    """Lets the proxy's adapter have other weights for a while; training goes into them."""
    own = {name: parameter.data for name, parameter in proxy.parameters.items()}
    try:
        for name, parameter in proxy.parameters.items():
            parameter.data = weights[name]
        yield
    finally:
        for name, parameter in proxy.parameters.items():
            parameter.data = own[name]


def _copied(tensors: Mapping[str, Tensor]) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
