"""How much is kept, and what decides."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from ost_hf.errors import ConfigError, require_choice, require_integer, require_range
from ost_hf.settings import remembers_given
from ost_hf.shares import quota_of

DEFAULT_KEEP_RATIO = 0.5
# DEITA takes rows whose similarity to the nearest chosen one is below 0.9.
DEITA_THRESHOLD = 0.1

ORDERS = ("auto", "likeliest", "top", "setwise", "diverse")
# Those that ask which rows are of the anchors' kind.
BY_KIND = ("auto", "likeliest")
AGGREGATIONS = ("mean", "min", "max", "vote", "round_robin")


@remembers_given
@dataclass(frozen=True)
class SelectionConfig:
    """Keep the best part of the pool; without any setting, half of it."""

    keep_ratio: float | None = field(
        default=None,
        metadata={
            "common": True,
            "short": "share of the pool to keep; 0.5 if nothing else is set",
            "help": "share of the pool to keep, in (0, 1]; 0.5 if nothing else is set; copies that were dropped are no "
            "part of the pool",
        },
    )
    keep_count: int | None = field(default=None, metadata={"common": True, "help": "number of rows to keep"})
    min_utility: float | None = field(
        default=None, metadata={"help": "keep only rows of at least this utility; alone or beside the other two"}
    )
    order: str = field(
        default="auto",
        metadata={
            "common": True,
            "short": "auto, likeliest, top (highest first), setwise, diverse",
            "help": "`auto`: after a second look, rows as clean as the anchors first, and of too many of those a "
            "draw, hard rows more often unless corruption is hardly told apart (the log says what was chosen and why); "
            "without one, as `top`; `likeliest`: after a second look, by how likely a row is clean and of the "
            "anchors' kind, without a draw: easy rows come first; `top`: highest "
            "utility first (the paper's); `setwise`: each row by what it adds to those chosen already (needs sketches: "
            "scoring.sketch_size); `diverse`: highest utility first, leaving out what is near a row taken already "
            "(DEITA's filter, on its embeddings or on sketches)",
        },
    )
    diversity_threshold: float = field(
        default=DEITA_THRESHOLD,
        metadata={"help": "`diverse`: least cosine distance to the nearest row taken (DEITA's)"},
    )
    aggregate: str | None = field(
        default=None,
        metadata={
            "help": "how the utilities for the anchor groups (columns group:NAME of scoring.group_by) become one: "
            "`mean`, `min` (worst group), `max` (best group), `vote`, `round_robin`; by default the mean over anchors"
        },
    )
    aggregate_over: str = field(
        default="groups",
        metadata={"help": "`groups`, or `anchors`: every anchor is a group of its own (needs scoring.per_anchor)"},
    )
    length_strata: int = field(
        default=1,
        metadata={
            "help": "rank within so many groups of rows of like length, and keep the same share of each: a mean over "
            "tokens favours short answers; 1: no groups"
        },
    )
    balance_by: str | None = field(
        default=None, metadata={"help": "column of the pool (source, task, ...) whose values all get their part"}
    )
    balance: str = field(
        default="proportional",
        metadata={"help": "with balance_by: `proportional` to the pool, or `equal` parts as far as the rows go"},
    )
    false_discovery_rate: float = field(
        default=0.05,
        metadata={
            "help": "column `verdict`: of the rows called corrupted, of those called hurting and of those called "
            "helping at most this share is expected to be called so wrongly; needs scoring.per_anchor or "
            "a second look"
        },
    )
    drop_toxic: bool = field(
        default=False,
        metadata={
            "common": True,
            "short": "never keep a row whose verdict is toxic",
            "help": "never keep a row whose verdict is toxic, even if less than asked is kept",
        },
    )
    weighted_loss: bool = field(
        default=False,
        metadata={
            "help": "write a column `ost_weight`: how likely each row, kept or not, is clean and of the anchors' kind; "
            "the training weighs the loss of each kept row by it (needs a second look)"
        },
    )
    mask_turns: bool = field(
        default=False,
        metadata={
            "help": "list the turns of kept rows that look corrupted in a column `masked_turns`: the training leaves "
            "them out, and a row all of whose turns look so is not kept (needs scoring.per_turn and a second look)"
        },
    )
    seed: int = field(default=0, metadata={"help": "of the bootstrap behind the verdicts, and of the draw of `auto`"})

    def __post_init__(self) -> None:
        require_range("selection.keep_ratio", self.keep_ratio, above=0, at_most=1)
        require_integer("selection.keep_count", self.keep_count, at_least=1, optional=True)
        require_choice("selection.order", self.order, ORDERS)
        require_range("selection.diversity_threshold", self.diversity_threshold, above=0, at_most=2)
        if self.aggregate is not None:
            require_choice("selection.aggregate", self.aggregate, AGGREGATIONS)
        require_choice("selection.aggregate_over", self.aggregate_over, ["groups", "anchors"])
        require_integer("selection.length_strata", self.length_strata, at_least=1)
        require_choice("selection.balance", self.balance, ["proportional", "equal"])
        require_range("selection.false_discovery_rate", self.false_discovery_rate, above=0, at_most=0.5)
        if self.keep_ratio is not None and self.keep_count is not None:
            raise ConfigError("give selection.keep_ratio or selection.keep_count, not both")
        if self.aggregate_over == "anchors" and self.aggregate is None:
            raise ConfigError(
                "selection.aggregate_over 'anchors' needs selection.aggregate: how they become one utility"
            )
        if self.balance != "proportional" and self.balance_by is None:
            raise ConfigError(
                f"selection.balance {self.balance!r} needs selection.balance_by: the column whose values get their part"
            )
        if self.length_strata > 1 and self.balance_by is not None:
            raise ConfigError("give selection.length_strata or selection.balance_by, not both")

    def check(self, columns: Set[str]) -> None:
        """Raises ``ConfigError`` where a score table lacks what the selection goes by, or it would decide nothing.

        Args:
            columns: The table's columns beside the usual ones, those that it has or those that it will have; ``group:``
                stands for any that begin so.
        """
        has_groups = any(name.startswith("group:") for name in columns)
        over_groups = self.aggregate is not None and self.aggregate_over == "groups"
        over_anchors = self.aggregate is not None and self.aggregate_over == "anchors"
        of_anchors = bool({"anchor_utilities", "anchor_similarities"} & columns)
        p_values = bool({"corrupted_p", "anchor_utilities"} & columns)
        for setting, is_asked, is_there, remedy in (
            ("order 'likeliest'", self.order == "likeliest", "corrupted_p" in columns, "a second look"),
            ("order 'setwise'", self.order == "setwise", "sketch" in columns, "scoring.sketch_size (512, say)"),
            (
                "order 'diverse'",
                self.order == "diverse",
                "sketch" in columns,
                "scoring.sketch_size (512, say), or a scorer that gives an embedding",
            ),
            ("weighted_loss", self.weighted_loss, "corrupted_p" in columns, "a second look"),
            (
                "mask_turns",
                self.mask_turns,
                "turn_corrupted_p" in columns,
                "scoring.per_turn and a second look",
            ),
            ("drop_toxic", self.drop_toxic, p_values, "a second look, or scoring.per_anchor and two anchors at least"),
            ("aggregate", over_groups, has_groups, "scoring.group_by"),
            ("aggregate_over 'anchors'", over_anchors, of_anchors, "scoring.per_anchor"),
        ):
            if is_asked and not is_there:
                has = ", ".join(sorted(columns)) or "none"
                raise ConfigError(
                    f"selection.{setting} goes by columns that the scores lack (beside the usual ones they have: "
                    f"{has}): score with {remedy}, or select otherwise"
                )
        if self.aggregate is not None and (
            self.order == "setwise" or (self.order in BY_KIND and "corrupted_p" in columns)
        ):
            raise ConfigError(
                f"selection.aggregate makes one utility of many, but selection.order {self.order!r} goes by "
                "sketches or p-values here: set selection.order to top or diverse, or leave aggregate unset"
            )

    @property
    def other_cuts(self) -> list[str]:
        """The settings that cut elsewhere than at one share of the pool."""
        given = {
            "selection.keep_count": self.keep_count is not None,
            "selection.min_utility": self.min_utility is not None,
            "selection.length_strata": self.length_strata > 1,
            "selection.balance_by": self.balance_by is not None,
        }
        return [name for name, is_set in given.items() if is_set]

    def quota(self, pool_size: int) -> int:
        """How many rows may be kept of a pool."""
        if self.keep_count is not None:
            return min(self.keep_count, pool_size)
        if self.keep_ratio is None and self.min_utility is not None:
            return pool_size
        ratio = DEFAULT_KEEP_RATIO if self.keep_ratio is None else self.keep_ratio
        return quota_of(ratio, pool_size)
