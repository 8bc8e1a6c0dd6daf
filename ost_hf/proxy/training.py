"""The proxy's own training loop: AdamW over given batches, the same for any number of processes.

Each step's batch is given as rows: the processes share its samples and add up their gradients. A ``Trainer``
would hand every process batches of its own, and the proxy would depend on how many there are.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from ost_hf.data.batching import cut_batches
from ost_hf.data.collator import Collator
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import Encoded
from ost_hf.functional.loss import per_sample_loss
from ost_hf.parallel import free_memory, share, state, sum_over_processes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingPlan:
    """Which rows are learnt from, step by step, and how.

    Attributes:
        batches: Row numbers of each step.
        learning_rates: One for each step.
        micro_batch_tokens: Tokens per forward and backward pass in one process, padding included; by default 2,048 on a
            CPU and 16,384 on an accelerator. Halved where a step does not fit into memory.
        max_grad_norm: Clip the gradient's norm to this.
        in_bfloat16: Mixed precision: products in bfloat16, weights and optimizer as they are.
        name: For the progress bar.
    """

    batches: Sequence[Sequence[int]]
    learning_rates: Sequence[float]
    micro_batch_tokens: int | None = None
    max_grad_norm: float | None = None
    in_bfloat16: bool = False
    name: str = "training"


def train(
    model: Any,
    parameters: Iterable[nn.Parameter],
    rows: EncodedDataset,
    plan: TrainingPlan,
    after_step: Callable[[torch.optim.Optimizer], None] | None = None,
) -> tuple[torch.optim.Optimizer, list[float]]:
    """Trains parameters in place.

    Args:
        model: The model; its mode is left as it is.
        parameters: What is trained. They must not require gradients before; they do not afterwards.
        rows: The dataset; every row of the plan must be one that can be encoded.
        plan: Rows and rate of each step.
        after_step: Gets the optimizer after each step, to look at it and at the parameters.

    Returns:
        The optimizer with its state, and the mean loss of each step.

    Raises:
        torch.OutOfMemoryError: If a single row does not fit into the device's memory.
    """
    for parameter in (parameters := list(parameters)):
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0, fused=True)
    collate = Collator.of(rows.encoder.processing_class)
    tokens = plan.micro_batch_tokens or (2048 if state().device.type == "cpu" else 16384)
    losses, schedule = [], list(zip(plan.batches, plan.learning_rates, strict=True))
    for batch, rate in tqdm(schedule, desc=plan.name, unit="step", disable=not state().is_main_process):
        mine, total = [rows.encode(row) for row in share(list(batch))], None
        while total is None:
            # Again from the start: a part that did not fit has left some of its gradients.
            optimizer.zero_grad(set_to_none=False)
            total = _accumulate(model, cut_batches(mine, tokens), len(batch), collate, plan.in_bfloat16)
            if total is None:
                tokens //= 2  # a row that is longer is a batch of its own
                free_memory()
                logger.warning("out of memory while %s; going on with %d tokens at once", plan.name, tokens)
        _add_up(total, parameters)
        _step(optimizer, parameters, rate, plan.max_grad_norm)
        losses.append(float(total))
        if after_step is not None:
            after_step(optimizer)
    for parameter in parameters:
        parameter.requires_grad_(False).grad = None
    return optimizer, losses


def _add_up(total: torch.Tensor, parameters: list[nn.Parameter]) -> None:
    """Sums loss and gradients over the processes, in place; one without a gradient has a zero."""
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    sum_over_processes([total, *(parameter.grad for parameter in parameters if parameter.grad is not None)])


def _step(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], rate: float, max_grad_norm: float | None
) -> None:
    if max_grad_norm is not None:
        nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


def _accumulate(
    model: Any, micro_batches: list[list[Encoded]], samples: int, collate: Collator, in_bfloat16: bool
) -> torch.Tensor | None:
    """Adds up the gradients of a step's mean loss.

    Returns:
        This process's part of that loss; ``None`` if a batch of several rows does not fit into memory.
    """
    total = torch.zeros((), device=state().device)
    for batch in micro_batches:
        features = collate([row.inputs() for row in batch])
        inputs = {key: value.to(state().device) for key, value in features.items()}
        try:
            with torch.autocast(state().device.type, torch.bfloat16, enabled=in_bfloat16):
                loss = per_sample_loss(model, inputs).sum() / samples
            loss.backward()
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            return None
        total += loss.detach()
    return total


def shuffled_batches(rows: Sequence[int], size: int, steps: int, seed: int) -> list[list[int]]:
    """Full batches from seeded shuffled passes over the rows.

    Args:
        rows: Row numbers.
        size: Samples in a batch; a pass may begin in the middle of one.
        steps: How many batches.
        seed: The same seed gives the same batches.
    """
    generator = random.Random(seed)
    order: list[int] = []
    while len(order) < steps * size:
        order += generator.sample(list(rows), len(rows))
    return [order[start : start + size] for start in range(0, steps * size, size)]


def linear_schedule(steps: int, peak: float, rise: int) -> list[float]:
    """Learning rates that rise to ``peak`` over the first ``rise`` steps and fall to zero at the end."""
    rise = max(1, rise)
    return [peak * min((step + 1) / rise, (steps - step) / max(1, steps - rise)) for step in range(steps)]
