"""A short AdamW warm-up on a random part of the pool; its optimizer state is kept.

A cold LoRA (B = 0) has no gradient in A and ranks badly; the paper's best is 5 % of the pool.
"""

from __future__ import annotations

import logging
import random

import torch

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import Encoded
from ost_hf.errors import DataError
from ost_hf.functional.step import AdamState
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import Proxy
from ost_hf.proxy.training import TrainingPlan, shuffled_batches, train

logger = logging.getLogger(__name__)


def warm_up(
    proxy: Proxy, pool: EncodedDataset, exclude: set[int], micro_batch_tokens: int | None = None
) -> list[float]:
    """Trains the adapter in place and stores the moments in ``proxy.adam``.

    There is no gradient clipping: the moments must be those of plain gradients.

    Args:
        proxy: The proxy; nothing happens if its ``warmup_fraction`` is 0.
        pool: The candidates, encoded for the proxy.
        exclude: Rows not to use (anchors found in the pool).
        micro_batch_tokens: As in :func:`ost_hf.proxy.training.TrainingPlan`.

    Returns:
        Mean loss of each step.

    Raises:
        DataError: If no row of the pool can be used.
    """
    config = proxy.config
    if config.warmup_fraction == 0:
        return []
    rows = warmup_rows(pool, config.warmup_fraction, exclude, config.seed)
    steps = warmup_steps(config, len(rows))
    batches = shuffled_batches(rows, config.warmup_batch_size, steps, config.seed + 1)
    rates = [config.warmup_learning_rate] * len(batches)
    plan = TrainingPlan(batches, rates, micro_batch_tokens, name="warm-up")
    optimizer, losses = train(proxy.model, proxy.parameters.values(), pool, plan)
    proxy.adam = moments_of(proxy, optimizer)
    if losses:
        logger.info("warm-up: %d steps on %d rows, loss %.3f -> %.3f", len(losses), len(rows), losses[0], losses[-1])
    return losses


def warmup_steps(config: ProxyConfig, rows: int) -> int:
    """How many steps a warm-up on so many rows takes."""
    return max(config.warmup_min_steps, -(-rows // config.warmup_batch_size))


def warmup_rows(pool: EncodedDataset, fraction: float, exclude: set[int], seed: int) -> list[int]:
    """A seeded random choice of usable rows, a given fraction of the pool.

    Raises:
        DataError: If no row can be used.
    """
    order = list(range(len(pool)))
    random.Random(seed).shuffle(order)
    wanted = wanted_rows(fraction, len(pool))
    chosen: list[int] = []
    refused: dict[str, int] = {}
    first: Encoded | None = None
    for row in order:
        if len(chosen) == wanted:
            break
        if row in exclude:
            continue
        encoded = pool.encode(row)
        if encoded.features is None:
            refused[encoded.status] = refused.get(encoded.status, 0) + 1
            first = first or encoded
        else:
            chosen.append(row)
    if not chosen:
        reason = f"; row {first.row}: {first.detail}" if first is not None else "; all are left out as copies"
        raise DataError(f"no row of the pool can be used to warm the proxy up; their statuses: {refused}{reason}")
    return chosen


def wanted_rows(fraction: float, pool_rows: int) -> int:
    """How many rows of a pool are used, where so many can be."""
    return max(1, round(fraction * pool_rows))


def moments_of(proxy: Proxy, optimizer: torch.optim.Optimizer) -> AdamState:
    """The moments that an optimizer of the adapter has come to."""
    exp_avg, exp_avg_sq, step = {}, {}, 0
    for name, parameter in proxy.parameters.items():
        kept = optimizer.state[parameter]
        exp_avg[name], exp_avg_sq[name], step = kept["exp_avg"], kept["exp_avg_sq"], int(kept["step"])
    return AdamState(exp_avg, exp_avg_sq, step)
