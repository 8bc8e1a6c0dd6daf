"""How the pool is walked through."""

from __future__ import annotations

from dataclasses import dataclass, field

from ost_hf.errors import require_range
from ost_hf.scorers.config import ScorerConfig


@dataclass(frozen=True)
class ScoringConfig(ScorerConfig):
    """The scorer and the loop around it."""

    part_size: int = field(
        default=512,
        metadata={"help": "rows per file of the score table; a killed run loses at most so many in each process"},
    )
    num_workers: int = field(default=0, metadata={"help": "processes that read and encode rows ahead of the scorer"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require_range("scoring.part_size", self.part_size, at_least=1)
        require_range("scoring.num_workers", self.num_workers, at_least=0)
