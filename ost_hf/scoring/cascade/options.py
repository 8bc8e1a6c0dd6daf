"""Where exact steps go. Standard library only: ``--help`` reads this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ost_hf.errors import ConfigError, require_integer, require_range
from ost_hf.scoring.config import ScoringConfig
from ost_hf.settings import remembers_given


@remembers_given
@dataclass(frozen=True)
class CascadeOptions:
    """The rows that are scored exactly: around one cut-off, and a random sample."""

    keep_ratio: float | None = field(
        default=None,
        metadata={
            "help": "the share that will be kept, whose cut-off is looked at exactly; by default selection.keep_ratio, "
            "or 0.5; to be set where the selection cuts by count, utility or strata"
        },
    )
    band: float = field(default=0.1, metadata={"help": "share of the pool around the cut-off that is scored exactly"})
    calibration: int = field(
        default=100, metadata={"help": "random rows scored exactly, to measure how far first order agrees"}
    )

    def __post_init__(self) -> None:
        require_range("scoring.cascade.keep_ratio", self.keep_ratio, above=0, at_most=1)
        require_range("scoring.cascade.band", self.band, at_least=0, at_most=1)
        require_integer("scoring.cascade.calibration", self.calibration, at_least=10)

    def check(self, config: ScoringConfig) -> None:
        """Raises ``ConfigError`` where there is no first-order utility to settle by exact steps."""
        estimator, utility = getattr(config.options, "estimator", None), getattr(config.options, "utility", None)
        if estimator != "reverse" or utility != "raw":
            raise ConfigError(
                "scoring.second_stage cascade settles raw first-order utilities by exact steps: it goes with estimator "
                f"'reverse' and utility 'raw' (scoring.{config.scorer}), got {estimator!r} and {utility!r}"
            )
        if config.group_by or config.sketch_size or config.embedding_size:
            raise ConfigError(
                "scoring.second_stage cascade mixes first-order and exact utilities of the mean over all anchors: "
                "leave scoring.group_by, store, sketch_size and embedding_size unset, or second_stage null"
            )

    def at_cut(self, keep_ratio: float | None, other_cuts: Sequence[str] = ()) -> CascadeOptions:
        """The same with the cut that exact steps go to, where they name none.

        Args:
            keep_ratio: The share that will be kept, if that is set.
            other_cuts: Settings of the selection that put the cut, or several, where no share of the pool tells.

        Raises:
            ConfigError: If there are such settings and ``keep_ratio`` is not set here.
        """
        if self.keep_ratio is not None:
            return self
        if other_cuts:
            raise ConfigError(
                f"cascade steps exactly near one cut, and {' and '.join(other_cuts)} cut elsewhere: set "
                "scoring.cascade.keep_ratio to about the share of the pool that will be kept, or scoring.second_stage "
                "to null"
            )
        return replace(self, keep_ratio=keep_ratio)

    @property
    def share(self) -> float:
        """The share of the pool above the cut-off that is looked at."""
        return 0.5 if self.keep_ratio is None else self.keep_ratio
