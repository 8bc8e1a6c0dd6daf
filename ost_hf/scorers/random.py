"""A seeded random number for each candidate: the baseline every method must beat."""

from __future__ import annotations

import hashlib
from typing import Any

from ost_hf.data.encoding.encoded import Encoded
from ost_hf.scorers.protocol import NO_LIMIT
from ost_hf.scorers.registry import register


@register("random", columns={})
class RandomScorer:
    """Uniform in [0, 1), a function of the seed and the candidate's id alone."""

    passes = 0

    def __init__(self, config: Any, **unused: Any):
        self.batch_size = config.batch_size
        self.batch_tokens = NO_LIMIT
        self._seed = config.seed

    def score(self, batch: list[Encoded]) -> list[float]:
        """Random utilities."""
        return [self._number(row.example_id) for row in batch]

    def _number(self, example_id: str) -> float:
        digest = hashlib.blake2b(f"{self._seed}:{example_id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64
