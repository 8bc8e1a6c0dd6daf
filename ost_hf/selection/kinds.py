"""Which rows of a score table are of the anchors' kind: :mod:`ost_hf.evidence.relevance` on its vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ost_hf.evidence.conformal import mean_by_chance
from ost_hf.evidence.relevance import relevance
from ost_hf.evidence.two_groups import probability_that_it_holds, share_that_keeps
from ost_hf.selection.columns import matrix, numbers

Floats = NDArray[np.float64]

# Rows with a p-value of cleanness above this are the pool that anchors are told from, if they are enough: junk is
# unlike the anchors too, and no other kind.
_LOOKS_CLEAN = 0.2
_ENOUGH = 0.1
# Standard deviations of the mean p-value from its expectation up to which nothing is made of it. Rows that look clean
# are a little easier than anchors, so that three would not be enough.
_DEVIATIONS = 5


@dataclass(frozen=True)
class Kinds:
    """How the pool's rows stand to the anchors' kind.

    ``probability [rows]`` is that of being of this kind, NaN for a row without a vector; ``share`` is the estimated
    share, among rows that look clean, of those that are; ``weight`` says how surely these rows and anchors differ: 0
    where chance could have it so, near 1 where it could not.
    """

    probability: Floats
    share: float
    weight: float

    def at(self, places: NDArray[np.int64]) -> Kinds:
        """The same of some rows."""
        return replace(self, probability=self.probability[places])

    @property
    def weighed(self) -> Floats:
        """The probabilities, as far as they are to count: all 1 with weight 0."""
        return self.probability**self.weight


def kinds_of(scores: pa.Table, anchors: pa.Table | None) -> Kinds | None:
    """What the vectors of rows and anchors tell; ``None`` where rows or anchors have none.

    Args:
        scores: A score table.
        anchors: The anchors' own scores.
    """
    has_vector = scores["embedding"].is_valid().to_numpy() if "embedding" in scores.column_names else np.zeros(0, bool)
    places = np.flatnonzero(has_vector)
    of_anchors = matrix(anchors, "embedding") if anchors is not None else None
    of_rows = matrix(scores, "embedding", places)
    if of_rows is None or of_anchors is None:
        return None
    finite = np.isfinite(of_rows).all(1)
    of_rows, places = of_rows[finite], places[finite]
    of_anchors = of_anchors[np.isfinite(of_anchors).all(1)]
    if len(of_rows) < 2 or len(of_anchors) < 2:
        return None
    typical = _look_clean(scores, places)
    p = relevance(of_rows, of_anchors.astype(np.float64), typical).p
    count, pool_p = len(of_anchors), p[typical]
    expected, deviation = mean_by_chance(len(pool_p), count)
    away = (expected - float(pool_p.mean())) / deviation
    probability = np.full(len(scores), np.nan)
    probability[places] = probability_that_it_holds(p, pool_p, count)
    return Kinds(probability, share_that_keeps(pool_p), max(0.0, 1 - (_DEVIATIONS / away) ** 2) if away > 0 else 0.0)


def _look_clean(scores: pa.Table, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of some rows look clean; all of them where hardly any does, or nothing tells."""
    p = numbers(scores, "corrupted_p")
    clean = p[places] > _LOOKS_CLEAN if p is not None else np.zeros(len(places), dtype=bool)
    return clean if clean.sum() >= max(2, _ENOUGH * len(places)) else np.ones(len(places), dtype=bool)
