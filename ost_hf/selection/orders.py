"""The order in which candidates are taken.

Every order is a function that gets candidates sorted by ``example_id`` and returns all of them in its order; who comes
first is kept, as far as the quota and the strata's room go. Ties are broken by place, so nothing depends on the order
of the pool.

Letters: N candidates, V anchors, k size of a sketch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ost_hf.errors import DataError
from ost_hf.selection.auto import auto, likeliest
from ost_hf.selection.candidates import Candidates, Order, best_first, take
from ost_hf.selection.diversity import diverse_order
from ost_hf.selection.setwise import greedy


def top(candidates: Candidates) -> Order:
    """Highest utility first."""
    return take(candidates, best_first(candidates.utility), "highest utility first")


def setwise(candidates: Candidates) -> Order:
    """Each by what it adds to those taken: :mod:`ost_hf.selection.setwise`.

    Raises:
        DataError: Without sketches.
    """
    if candidates.sketch is None or candidates.anchor_sketch is None:
        raise DataError(
            "selection.order 'setwise' needs sketches of candidates and anchors: score with scoring.sketch_size "
            "(512, say), and give select the anchors' table"
        )
    chosen = greedy(
        candidates.sketch,
        candidates.anchor_sketch,
        candidates.quota,
        stratum_N=candidates.stratum,
        room=candidates.room,
    )
    explanation = "each row by what it adds to those taken before"
    if chosen.positive < len(chosen.order):
        explanation += (
            f"; row {chosen.positive + 1} is the first that adds nothing more, and the quota was filled all the same"
        )
    rest = np.setdiff1d(np.arange(len(candidates.utility)), chosen.order)
    return Order(chosen.order, rest[best_first(candidates.utility[rest])], explanation)


def diverse(candidates: Candidates) -> Order:
    """Highest utility first, without what is near a row taken already: :mod:`ost_hf.selection.diversity`.

    Raises:
        DataError: Without embeddings, or with strata: a filter that leaves rows out has no parts to fill.
    """
    if candidates.sketch is None:
        raise DataError(
            "selection.order 'diverse' needs an embedding of each row: score with scorer deita, or with "
            "scoring.sketch_size"
        )
    if len(candidates.room) > 1:
        raise DataError("selection.order 'diverse' cannot be balanced: leave length_strata and balance_by unset")
    taken = diverse_order(
        candidates.utility.tolist(), candidates.sketch, candidates.diversity_threshold, count=candidates.quota
    )
    kept = np.asarray(taken, dtype=np.int64)
    rest = np.setdiff1d(np.arange(len(candidates.utility)), kept)
    explanation = f"highest utility first, at least {candidates.diversity_threshold:g} apart in cosine distance"
    near = f"within {candidates.diversity_threshold:g} of a row taken"
    left_out = near if len(kept) < candidates.quota else f"ranked after the first {len(kept)}, or {near}"
    return Order(kept, rest[best_first(candidates.utility[rest])], explanation, left_out)


ORDER_FUNCTIONS: dict[str, Callable[[Candidates], Order]] = {
    "auto": auto,
    "likeliest": likeliest,
    "top": top,
    "setwise": setwise,
    "diverse": diverse,
}
