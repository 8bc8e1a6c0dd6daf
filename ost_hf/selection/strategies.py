"""The order in which candidates are taken.

Every strategy gets candidates sorted by ``example_id`` and returns all of them in its order; who comes first is kept,
as far as the quota and the strata's room go. Ties are broken by place, so nothing depends on the order of the pool.

Letters: N candidates, V anchors, k size of a sketch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ost_hf.errors import DataError
from ost_hf.selection.diversity import DEFAULT_THRESHOLD, diverse_order
from ost_hf.selection.setwise import greedy

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

# `auto`: rows with a p-value above this are all as clean as the anchors: the rest of the difference is how easy a row
# is, and easy rows teach little. Chosen on development seeds.
AS_CLEAN = 0.2
# `auto`: the level at which the pool's share of small p-values is compared with what chance gives.
_LEVEL = 0.05


@dataclass(frozen=True)
class Candidates:
    """What a strategy may go by; ``room`` is how many rows each stratum may still give."""

    utility: Floats
    quota: int
    stratum: Places
    room: Places
    corrupted_p: Floats | None = None
    late_loss: Floats | None = None
    sketch: NDArray[np.float32] | None = None
    anchor_sketch: NDArray[np.float32] | None = None
    diversity_threshold: float = DEFAULT_THRESHOLD


@dataclass(frozen=True)
class Order:
    """Kept places in the order they were taken, the others after them, and in words what decided."""

    kept: Places
    others: Places
    explanation: str


def top(candidates: Candidates) -> Order:
    """Highest utility first."""
    return _take(candidates, best_first(candidates.utility), "highest utility first")


def setwise(candidates: Candidates) -> Order:
    """Each by what it adds to those taken: :mod:`ost_hf.selection.setwise`.

    Raises:
        DataError: Without sketches.
    """
    if candidates.sketch is None or candidates.anchor_sketch is None:
        raise DataError(
            "selection.strategy 'setwise' needs sketches of candidates and anchors: score with scoring.sketch_size "
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
            f"; from row {chosen.positive + 1} on nothing adds any more, and the quota was filled all the same"
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
            "selection.strategy 'diverse' needs an embedding of each row: score with scorer deita, or with "
            "scoring.sketch_size"
        )
    if len(candidates.room) > 1:
        raise DataError("selection.strategy 'diverse' cannot be balanced: leave length_strata and balance_by unset")
    taken = diverse_order(
        candidates.utility.tolist(), candidates.sketch, candidates.diversity_threshold, count=candidates.quota
    )
    kept = np.asarray(taken, dtype=np.int64)
    rest = np.setdiff1d(np.arange(len(candidates.utility)), kept)
    explanation = f"highest utility first, at least {candidates.diversity_threshold:g} apart in cosine distance"
    return Order(kept, rest[best_first(candidates.utility[rest])], explanation)


def auto(candidates: Candidates) -> Order:
    """What can be measured decides: as clean as the anchors first, and among those what fits the anchors together."""
    p, late = candidates.corrupted_p, candidates.late_loss
    if p is None or late is None:
        order = top(candidates)
        return Order(order.kept, order.others, f"{order.explanation} (there was no second look)")
    clean, found = split_clean(p, candidates)
    first = _among(candidates, clean)
    room = candidates.room - np.bincount(candidates.stratum[first.kept], minlength=len(candidates.room))
    doubtful = np.setdiff1d(np.arange(len(p)), clean)
    doubtful = doubtful[np.lexsort((doubtful, late[doubtful], -p[doubtful]))]
    quota = candidates.quota - len(first.kept)
    more = _take(_part(candidates, np.arange(len(p)), quota, room), doubtful, "")
    others = np.concatenate([first.others, more.others])
    explanation = f"{found}; {first.explanation}"
    if len(more.kept):
        explanation += f"; {len(more.kept)} rows that look less clean fill the quota, the cleanest of them first"
    return Order(np.concatenate([first.kept, more.kept]), others, explanation)


def split_clean(p: Floats, candidates: Candidates) -> tuple[Places, str]:
    """The places of rows as clean as anchors, and in words what was found.

    If the pool has no more small p-values than chance gives, nothing is corrupted as far as can be seen, and every
    row counts as clean: the hardest tenth of a clean pool is no noise.
    """
    share = float((p <= _LEVEL).mean())
    # The anchors are a sample too: so many of them decide where the level lies.
    calibration = round(1 / float(p.min()) - 1) if p.min() > 0 else len(p)
    chance = _LEVEL + 2 * np.sqrt(_LEVEL * (1 - _LEVEL) / max(1, calibration))
    if share <= chance:
        return np.arange(len(p)), (
            f"{share:.1%} of the rows have a p-value of at most {_LEVEL}, chance gives up to {chance:.1%}: "
            "no corruption was found"
        )
    clean = np.flatnonzero(p > AS_CLEAN)
    return clean, (
        f"{share:.1%} of the rows have a p-value of at most {_LEVEL}, chance gives up to {chance:.1%}: "
        f"{len(clean)} of {len(p)} rows as clean as the anchors (p > {AS_CLEAN}) come first"
    )


def best_first(values: Floats) -> Places:
    """Places in descending order of value, equal ones by place."""
    return np.lexsort((np.arange(len(values)), -values))


def _among(candidates: Candidates, places: Places) -> Order:
    part = _part(candidates, places, candidates.quota, candidates.room)
    order = setwise(part) if part.sketch is not None and part.anchor_sketch is not None else top(part)
    return Order(places[order.kept], places[order.others], order.explanation)


def _part(candidates: Candidates, places: Places, quota: int, room: Places) -> Candidates:
    """Some of the candidates, with another quota and room."""

    def some(values: NDArray | None) -> NDArray | None:
        return None if values is None else values[places]

    return Candidates(
        candidates.utility[places],
        quota,
        candidates.stratum[places],
        room,
        some(candidates.corrupted_p),
        some(candidates.late_loss),
        some(candidates.sketch),
        candidates.anchor_sketch,
        candidates.diversity_threshold,
    )


def _take(candidates: Candidates, order: Places, explanation: str) -> Order:
    """The first ones of an order that the quota and the strata have room for."""
    room = candidates.room.copy()
    kept: list[int] = []
    others: list[int] = []
    for place in order.tolist():
        if len(kept) < candidates.quota and room[candidates.stratum[place]] > 0:
            room[candidates.stratum[place]] -= 1
            kept.append(place)
        else:
            others.append(place)
    return Order(np.asarray(kept, dtype=np.int64), np.asarray(others, dtype=np.int64), explanation)


STRATEGY_FUNCTIONS: dict[str, Callable[[Candidates], Order]] = {
    "auto": auto,
    "top": top,
    "setwise": setwise,
    "diverse": diverse,
}
