"""How the pool is walked through."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ost_hf.errors import ConfigError, require_integer, require_range
from ost_hf.scorers.config import ScorerConfig
from ost_hf.scoring.second_look.options import SecondLookOptions


@dataclass(frozen=True)
class ScoringConfig(SecondLookOptions, ScorerConfig):
    """The scorer and the loop around it."""

    part_size: int = field(
        default=512,
        metadata={"help": "rows per file of the score table; a killed run loses at most so many in each process"},
    )
    num_workers: int | None = field(
        default=None,
        metadata={
            "help": "processes that read and encode rows ahead of the scorer; by default none on a CPU, and on an "
            "accelerator as many as keep it busy (4, or fewer on a small machine)"
        },
    )
    cascade_keep_ratio: float | None = field(
        default=None,
        metadata={
            "help": "cascade: the share that will be kept; its cut-off is looked at exactly; by default "
            "selection.keep_ratio, or 0.5; to be set where the selection cuts by count, utility or strata"
        },
    )
    cascade_band: float = field(
        default=0.1, metadata={"help": "cascade: share of the pool around the cut-off that is scored exactly"}
    )
    cascade_calibration: int = field(
        default=100, metadata={"help": "cascade: random rows scored exactly, to measure how far first order agrees"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_second_look()
        if self.second_look and (self.scorer != "one_step" or self.estimator == "cascade"):
            raise ConfigError(
                "scoring.second_look follows a look at one-step utilities: it goes with scorer one_step and estimator "
                f"reverse, forward or exact, not with {self.scorer} and {self.estimator}"
            )
        require_integer("scoring.part_size", self.part_size, at_least=1)
        require_integer("scoring.num_workers", self.num_workers, at_least=0, optional=True)
        require_range("scoring.cascade_keep_ratio", self.cascade_keep_ratio, above=0, at_most=1)
        require_range("scoring.cascade_band", self.cascade_band, at_least=0, at_most=1)
        require_integer("scoring.cascade_calibration", self.cascade_calibration, at_least=10)

    def near_the_cut(self, keep_ratio: float | None, other_cuts: Sequence[str] = ()) -> ScoringConfig:
        """The same with the cut that cascade's exact steps go to, where it names none.

        Args:
            keep_ratio: The share that will be kept, if that is set.
            other_cuts: Settings of the selection that put the cut, or several, where no share of the pool tells.

        Raises:
            ConfigError: If there are such settings and ``cascade_keep_ratio`` is not set.
        """
        if self.estimator != "cascade" or self.cascade_keep_ratio is not None:
            return self
        if other_cuts:
            raise ConfigError(
                f"estimator 'cascade' steps exactly near one cut, and {' and '.join(other_cuts)} cut elsewhere: "
                "set scoring.cascade_keep_ratio to about the share of the pool that will be kept, or use estimator "
                "'reverse'"
            )
        return replace(self, cascade_keep_ratio=keep_ratio)

    @property
    def cascade_share(self) -> float:
        """The share of the pool above the cut-off that the cascade looks at."""
        return 0.5 if self.cascade_keep_ratio is None else self.cascade_keep_ratio

    def workers(self, device_type: str) -> int:
        """How many processes encode rows ahead in each scoring process."""
        if self.num_workers is not None:
            return self.num_workers
        return 0 if device_type == "cpu" else min(4, (os.cpu_count() or 1) // 2)
