"""Which rows of a score table are called toxic or useful: :mod:`ost_hf.evidence.verdicts` on its columns."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ost_hf.errors import DataError
from ost_hf.evidence.conformal import least_p
from ost_hf.evidence.verdicts import hurts_p, least_hurts_p, verdicts
from ost_hf.selection.auto import UNKNOWN_ANCHORS
from ost_hf.selection.columns import anchors_of_utilities, numbers
from ost_hf.selection.config import SelectionConfig
from ost_hf.tables.score_table import p_value_anchors
from ost_hf.tables.vectors import matrix


def check_toxicity(scores: pa.Table, config: SelectionConfig) -> None:
    """Raises ``DataError`` where no row could be called toxic, however corrupted."""
    rate, of_utilities = config.false_discovery_rate, anchors_of_utilities(scores)
    if not config.drop_toxic or (of_utilities and least_hurts_p(of_utilities) <= rate):
        return
    if numbers(scores, "corrupted_p") is None:
        if of_utilities:
            lowest = least_hurts_p(of_utilities)
            raise DataError(
                f"selection.drop_toxic could drop nothing: with {of_utilities} anchors no p-value of 'hurts the "
                f"anchors' is below {lowest:.2g}, and selection.false_discovery_rate is {rate:g}. Score with more "
                "anchors, ask a higher rate, or leave drop_toxic unset"
            )
        return
    count = p_value_anchors(scores)
    if count is None:
        raise DataError(UNKNOWN_ANCHORS)
    lowest = least_p(count)
    if lowest > rate:
        raise DataError(
            f"selection.drop_toxic could drop nothing: with {count} anchors no p-value of 'corrupted' is below "
            f"{lowest:.2g}, and selection.false_discovery_rate is {rate:g}. Score with {math.ceil(1 / rate - 1)} "
            "anchors at least (several times as many tell more), or leave drop_toxic unset"
        )


def verdicts_of(table: pa.Table, config: SelectionConfig) -> NDArray[np.str_] | None:
    """The verdict of each row of a score table; ``None`` without p-values."""
    corrupted = numbers(table, "corrupted_p")
    if corrupted is not None:
        # A row without a second look is not called corrupted.
        corrupted = None if np.isnan(corrupted).all() else np.nan_to_num(corrupted, nan=1.0)
    per_anchor = matrix(table, "anchor_utilities")
    hurts = helps = None
    if per_anchor is not None and per_anchor.shape[1] > 1:
        hurts, helps = (hurts_p(sign * per_anchor.astype(np.float64), seed=config.seed) for sign in (1, -1))
    if corrupted is None and hurts is None:
        return None
    return verdicts(config.false_discovery_rate, hurts, helps, corrupted)
