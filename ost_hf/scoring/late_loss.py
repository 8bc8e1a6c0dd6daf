"""Looks at rows with the proxies of the second look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ost_hf.data.encoding import Encoded
from ost_hf.scorers.base import Score
from ost_hf.scorers.config import ScorerConfig
from ost_hf.scorers.inputs import ToDevice, forward_batch_tokens
from ost_hf.utility.late_loss import late_loss


class LateLossScorer:
    """Ranks by :func:`ost_hf.utility.late_loss.late_loss`, lowest first.

    Args:
        models: Proxies that were fine-tuned on other rows, in evaluation mode, on this process's device.
        processing_class: Their tokenizer or processor.
        config: Batch limits.
    """

    batch_size: int | None

    def __init__(self, models: Sequence[Any], processing_class: Any, config: ScorerConfig):
        self.batch_size, self.batch_tokens = config.batch_size, forward_batch_tokens(config)
        self._models, self._inputs = models, ToDevice(processing_class)

    def score(self, batch: list[Encoded]) -> list[Score]:
        """Losses of a batch of candidates, or of anchors."""
        with torch.inference_mode():
            losses = late_loss(self._models, self._inputs(batch))
        return [Score(-loss, loss) for loss in losses.tolist()]
