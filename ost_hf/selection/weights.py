"""The column ``ost_weight`` of a selection table: :mod:`ost_hf.evidence.weights` on the columns of a score table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ost_hf.errors import DataError
from ost_hf.evidence.weights import row_weights
from ost_hf.selection.auto import UNKNOWN_ANCHORS
from ost_hf.selection.columns import numbers, pool_p_of
from ost_hf.selection.kinds import Kinds
from ost_hf.tables.score_table import p_value_anchors


def weights_of(scores: pa.Table, selection: pa.Table, kinds: Kinds | None) -> tuple[pa.Array, str]:
    """The weight of each row of a pool, and in words what they come to.

    Args:
        scores: A score table after a second look.
        selection: Its selection table; a row of each for every row of the pool.
        kinds: Which rows are of the anchors' kind, as far as that is known.

    Returns:
        Weights in the order of ``selection``, and words for its explanation.

    Raises:
        DataError: If no row has a p-value, it is not known how many anchors they were made with, or all kept rows have
            weight 0.
    """
    p = numbers(scores, "corrupted_p")
    if p is None or np.isnan(p).all():
        raise DataError(
            "selection.weighted_loss: no row had a second look, and weights are made of its p-values; score again with "
            "scoring.second_stage second_look, or leave weighted_loss unset"
        )
    if (anchors := p_value_anchors(scores)) is None:
        raise DataError(UNKNOWN_ANCHORS)
    weights = row_weights(p, anchors, None if kinds is None else kinds.weighed, pool_p_of(scores))
    of_row = dict(zip(scores["row"].to_pylist(), weights.tolist(), strict=True))
    ordered = np.asarray([of_row[row] for row in selection["row"].to_pylist()])
    kept = selection["kept"].to_numpy()
    if not ordered[kept].any():
        raise DataError(
            "selection.weighted_loss: every kept row has weight 0, so nothing could be learnt: none of them had a "
            "second look, or none is of the anchors' kind"
        )
    explanation = f"the kept rows have weights from {ordered[kept].min():.2g} to {ordered[kept].max():.2g}, "
    explanation += f"{ordered[kept].mean():.2g} on average"
    if without := int(np.isnan(p).sum()):
        explanation += f"; {without} rows of the pool had no second look and have weight 0"
    return pa.array(ordered, pa.float64()), explanation
