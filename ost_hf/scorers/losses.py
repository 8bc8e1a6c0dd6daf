"""What scorers share that rank by a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ost_hf.data.encoding.encoded import Encoded, Features
from ost_hf.scorers.inputs import BatchLimits, ToDevice, forward_batch_tokens


class LossScorer:
    """Ranks by a loss of the answer, lowest first.

    Args:
        loss: That of every sample of a batch, ``[B]``, under models in evaluation mode on this process's device.
        processing_class: Their tokenizer or processor.
        config: Batch limits.
        passes: Forward passes that a row's loss takes: one of each model.
    """

    batch_size: int | None

    def __init__(self, loss: Callable[[Features], Tensor], processing_class: Any, config: BatchLimits, passes: int = 1):
        self.passes = passes
        self.batch_size, self.batch_tokens = config.batch_size, forward_batch_tokens(config)
        self._loss, self._inputs = loss, ToDevice(processing_class)

    def score(self, batch: list[Encoded]) -> Mapping[str, Tensor]:
        """Losses of a batch of candidates, or of anchors."""
        with torch.inference_mode():
            loss_B = self._loss(self._inputs(batch)).double()
        return {"utility": -loss_B, "loss": loss_B}
