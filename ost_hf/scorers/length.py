"""Longest answer first: "long is more for alignment" (Zhao et al. 2024, arXiv 2402.04833).

    utility = number of supervised tokens

of the proxy's tokenizer. A baseline that needs no model and is hard to beat on instruction data.
"""

from __future__ import annotations

from typing import Any

from ost_hf.data.encoding.encoded import Encoded
from ost_hf.scorers.inputs import BatchLimits
from ost_hf.scorers.protocol import NO_LIMIT
from ost_hf.scorers.registry import register


@register("length", columns={})
class LengthScorer:
    """Ranks by the length of the answer in tokens."""

    batch_size: int | None
    passes = 0

    def __init__(self, config: BatchLimits, **unused: Any):
        self.batch_size = config.batch_size
        self.batch_tokens = NO_LIMIT

    def score(self, batch: list[Encoded]) -> list[float]:
        """Numbers of supervised tokens."""
        return [float(row.tokens) for row in batch]
