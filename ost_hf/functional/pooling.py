"""One vector for a whole row: the position-weighted mean of its last hidden states.

    e(z) = sum_t t h_t / sum_t t,  t = 1..T

Later tokens have seen more of the row, so they weigh more (SGPT, Muennighoff 2022, arXiv 2202.08904). h is what enters
the output head, after the final norm.

Letters: B samples, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def position_weighted_mean(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean of each row's hidden states, weighted by position.

    Args:
        hidden_BTD: Hidden states.
        mask_BT: 1 for the row's own tokens, 0 for padding; only own tokens have a position.

    Returns:
        ``[B, D]``, float32 (float64 for float64 states).
    """
    wide_BTD = hidden_BTD if hidden_BTD.dtype == torch.float64 else hidden_BTD.float()
    weight_BT = (mask_BT.cumsum(1) * mask_BT).to(wide_BTD)
    return (weight_BT[:, None] @ wide_BTD)[:, 0] / weight_BT.sum(1, keepdim=True)


@contextmanager
def pooling(model: Any, mask_BT: Tensor) -> Iterator[list[Tensor]]:
    """Pools the last hidden states of a forward pass that is made anyway.

    Args:
        model: A causal language or image-text-to-text model with ``get_output_embeddings``.
        mask_BT: The attention mask of the batch.

    Yields:
        A list of the vectors ``[B, D]`` of each forward pass, detached.
    """
    found: list[Tensor] = []

    def pool(_: Any, args: tuple[Any, ...]) -> None:
        # A loss may ask the head again, about some positions alone.
        if args and args[0].shape[:-1] == mask_BT.shape:
            found.append(position_weighted_mean(args[0].detach(), mask_BT))

    # Hooks run in the order in which they were put there: this one sees all positions, before any are left out.
    handle = model.get_output_embeddings().register_forward_pre_hook(pool)
    try:
        yield found
    finally:
        handle.remove()
