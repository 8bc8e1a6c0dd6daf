"""The late loss of each turn of a row, from the forward pass that gives the row's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ost_hf.functional.loss import sample_means, token_losses
from ost_hf.functional.turns import turn_means


def late_losses(models: Sequence[Any], batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """:func:`ost_hf.evidence.late_loss.late_loss` of rows, and of each turn by itself.

    Args:
        models: At least one, of one tokenizer.
        batch: Model inputs with ``labels`` ``[B, T]``; -100 marks tokens without a label.

    Returns:
        ``[B]``, and ``[B, K]`` with NaN behind a row's last turn; in nats. A turn sees all that stands before it.
    """
    log_p_MN = -torch.stack([token_losses(model, batch) for model in models])
    square_N = (math.log(len(models)) - log_p_MN.logsumexp(0)).square()
    return sample_means(square_N, batch["labels"]).sqrt(), turn_means(square_N, batch["labels"]).sqrt()
