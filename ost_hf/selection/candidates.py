"""What an order of rows may go by, what it gives, and how places are filled.

Letters: N candidates, V anchors, k size of a sketch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ost_hf.selection.config import DEITA_THRESHOLD
from ost_hf.selection.kinds import Kinds

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Candidates:
    """What an order may go by.

    ``room`` is how many rows each stratum may still give. ``corrupted_p`` and ``late_loss`` are NaN for a row without a
    second look. ``kinds`` says which rows are of the anchors' kind, and is ``None`` where nothing tells. ``pool_p`` are
    the p-values that say what the pool is like, refused rows included: those of held-out rows, if it has such.
    ``p_value_anchors`` is the number of anchors that p-values were made with, where that is known. ``one_judge``
    says whether rows were judged that the judge may have learnt from. ``seed`` is of draws.
    """

    utility: Floats
    quota: int
    stratum: Places
    room: Places
    corrupted_p: Floats | None = None
    late_loss: Floats | None = None
    kinds: Kinds | None = None
    sketch: NDArray[np.float32] | None = None
    anchor_sketch: NDArray[np.float32] | None = None
    diversity_threshold: float = DEITA_THRESHOLD
    pool_p: Floats | None = None
    p_value_anchors: int | None = None
    one_judge: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Order:
    """Kept places in the order they were taken, the others after them, and in words what decided.

    ``left_out`` says why the others are not kept, where it is not that they come later. ``warning`` is what the user
    should know before trusting the choice.
    """

    kept: Places
    others: Places
    explanation: str
    left_out: str | None = None
    warning: str | None = None


def best_first(values: Floats) -> Places:
    """Places in descending order of value, equal ones by place."""
    return np.lexsort((np.arange(len(values)), -values))


def take(candidates: Candidates, order: Places, explanation: str) -> Order:
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
