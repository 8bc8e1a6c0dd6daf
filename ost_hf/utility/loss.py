"""Per-sample loss: mean cross-entropy over the supervised tokens of each sample.

Letters: B samples, T tokens, N supervised tokens of the batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

IGNORE_INDEX = -100


def per_sample_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """``l(z; theta)`` of every sample in a batch.

    Logits are computed at supervised positions only: the head's input is reduced to the N positions
    whose next token is an answer token, so a large vocabulary costs nothing for prompts and padding.

    Args:
        model: A causal language or image-text-to-text model with ``get_output_embeddings``.
        batch: Model inputs with ``labels`` ``[B, T]``; -100 marks tokens without a label.

    Returns:
        ``[B]`` in nats per token, float32 (float64 for a float64 model); NaN for a sample without labels.
    """
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    next_token_BT = batch["labels"][:, 1:]
    supervised_BT = next_token_BT != IGNORE_INDEX
    with _head_sees_only(model, supervised_BT):
        logits_NV = model(**inputs, use_cache=False).logits[0]
    logits_NV = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    loss_N = cross_entropy(logits_NV, next_token_BT[supervised_BT], reduction="none")
    sample_N = supervised_BT.nonzero()[:, 0]
    sum_B = torch.zeros(len(supervised_BT), dtype=loss_N.dtype, device=loss_N.device).index_add(0, sample_N, loss_N)
    return sum_B / supervised_BT.sum(1)


@contextmanager
def _head_sees_only(model: Any, supervised_BT: Tensor) -> Iterator[None]:
    """Gathers ``[B, T, D]`` into ``[1, N, D]`` on the way into the output embedding."""

    def gather(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden_BTD = args[0]
        return (hidden_BTD[:, :-1][supervised_BT][None], *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(gather)
    try:
        yield
    finally:
        handle.remove()
