"""How much is kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from ost_hf.errors import ConfigError, require_range

DEFAULT_KEEP_RATIO = 0.5


@dataclass(frozen=True)
class SelectionConfig:
    """Keep the best part of the pool; without any setting, half of it."""

    keep_ratio: float | None = field(
        default=None, metadata={"help": "share of the pool to keep, in (0, 1]; 0.5 if nothing else is set"}
    )
    keep_count: int | None = field(default=None, metadata={"help": "number of rows to keep"})
    min_utility: float | None = field(
        default=None, metadata={"help": "keep only rows of at least this utility; alone or beside the other two"}
    )

    def __post_init__(self) -> None:
        require_range("selection.keep_ratio", self.keep_ratio, above=0, at_most=1)
        require_range("selection.keep_count", self.keep_count, at_least=1)
        if self.keep_ratio is not None and self.keep_count is not None:
            raise ConfigError("give selection.keep_ratio or selection.keep_count, not both")

    def quota(self, pool_size: int) -> int:
        """How many rows may be kept of a pool."""
        if self.keep_count is not None:
            return min(self.keep_count, pool_size)
        if self.keep_ratio is None and self.min_utility is not None:
            return pool_size
        ratio = DEFAULT_KEEP_RATIO if self.keep_ratio is None else self.keep_ratio
        return max(1, int(ratio * pool_size + 0.5))
