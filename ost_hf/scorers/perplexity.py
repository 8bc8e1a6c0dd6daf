"""What the proxy finds likely comes first.

    utility = -l(z) = -(1/T) sum over the T supervised tokens of -log p(token | what stands before it)

Minus the logarithm of the answer's perplexity under the warm proxy. Low perplexity first, as where rows may be
corrupted: what the proxy cannot explain is often wrong. (Marion et al. 2023, arXiv 2309.04564, compare low, middle
and high perplexity for pretraining data.)
"""

from __future__ import annotations

from typing import Any

import torch

from ost_hf.data.encoding import Encoded
from ost_hf.proxy.model import Proxy
from ost_hf.scorers.base import PROXY, Score, register
from ost_hf.scorers.config import ScorerConfig
from ost_hf.scorers.inputs import ToDevice, forward_batch_tokens
from ost_hf.utility.loss import per_sample_loss


@register("perplexity", needs=(PROXY,))
class PerplexityScorer:
    """Ranks by the loss of the answer, lowest first.

    Args:
        config: Batch limits.
        proxy: The proxy.
    """

    batch_size: int | None

    def __init__(self, config: ScorerConfig, proxy: Proxy, **unused: Any):
        self.batch_size, self.batch_tokens = config.batch_size, forward_batch_tokens(config)
        self.model, self._inputs = proxy.model, ToDevice(proxy.processing_class)

    def score(self, batch: list[Encoded]) -> list[Score]:
        """Losses of a batch of candidates."""
        with torch.inference_mode():
            losses = per_sample_loss(self.model, self._inputs(batch))
        return [Score(-loss, loss) for loss in losses.tolist()]
