"""What the proxy finds likely comes first.

    utility = -l(z) = -(1/T) sum over the T supervised tokens of -log p(token | what stands before it)

Minus the logarithm of the answer's perplexity under the warm proxy. Low perplexity first, as where rows may be
corrupted: what the proxy cannot explain is often wrong. (Marion et al. 2023, arXiv 2309.04564, compare low, middle
and high perplexity for pretraining data.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ost_hf.data.encoding import Encoded, Features
from ost_hf.functional.loss import per_sample_loss
from ost_hf.proxy.model import Proxy
from ost_hf.scorers.base import PROXY, Score, register
from ost_hf.scorers.config import ScorerConfig
from ost_hf.scorers.inputs import ToDevice, forward_batch_tokens


class LossScorer:
    """Ranks by a loss of the answer, lowest first.

    Args:
        loss: That of every sample of a batch, ``[B]``, under models in evaluation mode on this process's device.
        processing_class: Their tokenizer or processor.
        config: Batch limits.
    """

    batch_size: int | None

    def __init__(self, loss: Callable[[Features], Tensor], processing_class: Any, config: ScorerConfig):
        self.batch_size, self.batch_tokens = config.batch_size, forward_batch_tokens(config)
        self._loss, self._inputs = loss, ToDevice(processing_class)

    def score(self, batch: list[Encoded]) -> list[Score]:
        """Losses of a batch of candidates, or of anchors."""
        with torch.inference_mode():
            losses = self._loss(self._inputs(batch))
        return [Score(-loss, loss) for loss in losses.tolist()]


@register("perplexity", needs=(PROXY,))
def perplexity(config: ScorerConfig, proxy: Proxy, **unused: Any) -> LossScorer:
    """The loss under the warm proxy."""
    return LossScorer(partial(per_sample_loss, proxy.model), proxy.processing_class, config)
