"""The loss by which the second look tells clean rows from corrupted ones.

Letters: M models, B samples, T tokens, N supervised tokens of the batch.

Two things set it apart from the mean cross-entropy of one model. A chain of thought with one wrong step is wrong in
few of its tokens, and a mean thins those out; a root mean square does so less. And models that were fine-tuned apart
are sure of different things: what one of them finds likely, their mixture does not call unlikely, so that a row is
held wrong where all of them are surprised.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ost_hf.functional.loss import sample_means, token_losses


def late_loss(models: Sequence[Any], batch: dict[str, Tensor]) -> Tensor:
    """Root mean square, over a sample's tokens, of their losses under the mixture of some models.

        sqrt( 1/T sum_t ( -log( 1/M sum_m p_m(token t | what stands before it) ) )^2 )

    Args:
        models: At least one, of one tokenizer.
        batch: Model inputs with ``labels`` ``[B, T]``; -100 marks tokens without a label.

    Returns:
        ``[B]`` in nats, at least the mixture's mean loss per token; NaN for a sample without labels.
    """
    log_p_MN = -torch.stack([token_losses(model, batch) for model in models])
    loss_N = math.log(len(models)) - log_p_MN.logsumexp(0)
    # Rounding makes a certain token's loss a little negative, which is as far from surprise as zero.
    return sample_means(loss_N.square(), batch["labels"]).sqrt()
