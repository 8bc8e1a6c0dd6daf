"""A short AdamW warm-up on a random part of the pool; its optimizer state is kept.

A cold LoRA (B = 0) has no gradient in A and ranks badly; the paper's best is 5 % of the pool.
"""

from __future__ import annotations

import logging
import random

import torch
from tqdm.auto import tqdm

from ost_hf.data.collator import Collator
from ost_hf.data.encoding import EncodedDataset
from ost_hf.errors import DataError
from ost_hf.parallel import share, state, sum_over_processes
from ost_hf.proxy.model import Proxy
from ost_hf.utility.loss import per_sample_loss
from ost_hf.utility.step import AdamState

logger = logging.getLogger(__name__)


def warm_up(proxy: Proxy, pool: EncodedDataset, exclude: set[int], micro_batch_size: int = 8) -> list[float]:
    """Trains the adapter in place and stores the moments in ``proxy.adam``.

    Each step's batch is the same for any number of processes: they share its samples and add up
    their gradients. There is no gradient clipping: the moments must be those of plain gradients.

    Args:
        proxy: The proxy; nothing happens if its ``warmup_fraction`` is 0.
        pool: The candidates, encoded for the proxy.
        exclude: Rows not to use (anchors found in the pool).
        micro_batch_size: Samples per forward pass in one process.

    Returns:
        Mean loss of each step.

    Raises:
        DataError: If no row of the pool can be used.
    """
    config = proxy.config
    if config.warmup_fraction == 0:
        return []
    rows = warmup_rows(pool, config.warmup_fraction, exclude, config.seed)
    batches = _batches(rows, config.warmup_batch_size, config.warmup_min_steps, config.seed)
    collate = Collator.of(proxy.processing_class)
    parameters = list(proxy.parameters.values())
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=config.warmup_learning_rate, weight_decay=0.0)
    losses = []
    for batch in tqdm(batches, desc="warm-up", unit="step", disable=not state().is_main_process):
        optimizer.zero_grad(set_to_none=False)
        total = torch.zeros((), device=state().device)
        mine = share(batch)
        for start in range(0, len(mine), micro_batch_size):
            features = collate([pool[row] for row in mine[start : start + micro_batch_size]])
            inputs = {key: value.to(state().device) for key, value in features.items()}
            loss = per_sample_loss(proxy.model, inputs).sum() / len(batch)
            loss.backward()
            total += loss.detach()
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        sum_over_processes([total, *(parameter.grad for parameter in parameters if parameter.grad is not None)])
        optimizer.step()
        losses.append(float(total))
    proxy.adam = _moments(proxy, optimizer)
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None
    if losses:
        logger.info("warm-up: %d steps on %d rows, loss %.3f -> %.3f", len(losses), len(rows), losses[0], losses[-1])
    return losses


def warmup_rows(pool: EncodedDataset, fraction: float, exclude: set[int], seed: int) -> list[int]:
    """A seeded random choice of usable rows, a given fraction of the pool.

    Raises:
        DataError: If no row can be used.
    """
    order = list(range(len(pool)))
    random.Random(seed).shuffle(order)
    wanted = max(1, round(fraction * len(pool)))
    chosen: list[int] = []
    refused: dict[str, int] = {}
    for row in order:
        if len(chosen) == wanted:
            break
        if row in exclude:
            continue
        encoded = pool.encode(row)
        if encoded.features is None:
            refused[encoded.status] = refused.get(encoded.status, 0) + 1
        else:
            chosen.append(row)
    if not chosen:
        raise DataError(f"no row of the pool can be used to warm the proxy up; their statuses: {refused}")
    return chosen


def _batches(rows: list[int], size: int, min_steps: int, seed: int) -> list[list[int]]:
    """Shuffled passes over the rows, full batches, at least ``min_steps`` and at least one pass."""
    generator = random.Random(seed + 1)
    wanted = max(min_steps, -(-len(rows) // size)) * size
    order: list[int] = []
    while len(order) < wanted:
        order += generator.sample(rows, len(rows))
    return [order[start : start + size] for start in range(0, wanted, size)]


def _moments(proxy: Proxy, optimizer: torch.optim.Optimizer) -> AdamState:
    exp_avg, exp_avg_sq, step = {}, {}, 0
    for name, parameter in proxy.parameters.items():
        kept = optimizer.state[parameter]
        exp_avg[name], exp_avg_sq[name], step = kept["exp_avg"], kept["exp_avg_sq"], int(kept["step"])
    return AdamState(exp_avg, exp_avg_sq, step)
