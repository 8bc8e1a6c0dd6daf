"""What the proxy finds likely comes first.

    utility = -l(z) = -(1/T) sum over the T supervised tokens of -log p(token | what stands before it)

Minus the logarithm of the answer's perplexity under the warm proxy. Low perplexity first, as where rows may be
corrupted: what the proxy cannot explain is often wrong. (Marion et al. 2023, arXiv 2309.04564, compare low, middle
and high perplexity for pretraining data.)
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ost_hf.functional.loss import per_sample_loss
from ost_hf.proxy.model import Proxy
from ost_hf.scorers.inputs import BatchLimits
from ost_hf.scorers.losses import LossScorer
from ost_hf.scorers.registry import PROXY, register


@register("perplexity", needs=(PROXY,), columns={})
def perplexity(config: BatchLimits, proxy: Proxy, **unused: Any) -> LossScorer:
    """The loss under the warm proxy."""
    return LossScorer(partial(per_sample_loss, proxy.model), proxy.processing_class, config)
