"""The turns of a row: contiguous runs of supervised labels, one for each answer of a conversation.

A label predicts a token from what stands before it, so the first position of a row is no part of any turn.

Letters: B samples, T tokens, N supervised tokens of the batch, K turns of the sample that has most.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from ost_hf.functional.loss import IGNORE_INDEX


def turn_numbers(labels_BT: Tensor) -> Tensor:
    """The turn of each label from the second position on, counted from 0.

    Args:
        labels_BT: -100 marks tokens without a label.

    Returns:
        ``[B, T - 1]``; -1 for a token without a label.
    """
    supervised = labels_BT[:, 1:] != IGNORE_INDEX
    before = torch.nn.functional.pad(supervised, (1, 0))[:, :-1]
    return torch.where(supervised, (supervised & ~before).cumsum(1) - 1, -1)


def turn_means(value_N: Tensor, labels_BT: Tensor) -> Tensor:
    """The mean over the tokens of each turn.

    Args:
        value_N: A number of every supervised token, sample after sample.
        labels_BT: -100 marks tokens without a label.

    Returns:
        ``[B, K]``; NaN behind the last turn of a sample that has fewer.
    """
    number = turn_numbers(labels_BT)
    size = max(1, int(number.max()) + 1) if number.numel() else 1
    sample_N, _ = (number >= 0).nonzero(as_tuple=True)
    place_N = sample_N * size + number[number >= 0]
    cells = len(labels_BT) * size
    sums = torch.zeros(cells, dtype=value_N.dtype, device=value_N.device).index_add(0, place_N, value_N)
    return (sums / torch.bincount(place_N, minlength=cells)).view(len(labels_BT), size)


def split_turns(labels_T: Tensor) -> list[Tensor]:
    """The labels of one row, once for each of its turns: those of all other turns are -100."""
    number = turn_numbers(labels_T[None])[0]
    return [_only(labels_T, number == turn) for turn in range(int(number.max()) + 1 if len(number) else 0)]


def without_turns(labels_T: Tensor, turns: Collection[int]) -> Tensor:
    """The labels of one row with those of some turns set to -100."""
    number = turn_numbers(labels_T[None])[0]
    taken = torch.isin(number, torch.tensor(sorted(turns), dtype=number.dtype, device=number.device))
    return _only(labels_T, (number >= 0) & ~taken)


def _only(labels_T: Tensor, kept: Tensor) -> Tensor:
    result = torch.full_like(labels_T, IGNORE_INDEX)
    result[1:] = torch.where(kept, labels_T[1:], IGNORE_INDEX)
    return result
