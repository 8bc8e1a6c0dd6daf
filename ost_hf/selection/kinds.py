"""Which rows of a score table are of the anchors' kind, by its p-values (:mod:`ost_hf.evidence.relevance`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ost_hf.evidence.conformal import looks_clean, mean_by_chance
from ost_hf.evidence.two_groups import probability_that_it_holds, share_that_keeps
from ost_hf.selection.columns import numbers
from ost_hf.tables.score_table import OTHER_KIND_P, p_value_anchors

Floats = NDArray[np.float64]

# Standard deviations of the mean p-value from its expectation up to which nothing is made of it. Rows that look clean
# are a little easier than anchors, so that three would not be enough.
_DEVIATIONS = 5


@dataclass(frozen=True)
class Kinds:
    """How the pool's rows stand to the anchors' kind.

    ``probability [rows]`` is that of being of this kind, NaN for a row without a p-value; ``share`` is the estimated
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


def kinds_of(scores: pa.Table) -> Kinds | None:
    """What p-values of "this row is of the anchors' kind" tell; ``None`` where there are none.

    Args:
        scores: A score table after a second look.
    """
    p, corrupted_p, anchors = numbers(scores, OTHER_KIND_P), numbers(scores, "corrupted_p"), p_value_anchors(scores)
    if p is None or corrupted_p is None or anchors is None or np.isnan(p).all():
        return None
    known = ~np.isnan(p)
    pool_p = p[known][looks_clean(corrupted_p[known])]
    expected, deviation = mean_by_chance(len(pool_p), anchors)
    away = (expected - float(pool_p.mean())) / deviation
    probability = np.full(len(scores), np.nan)
    probability[known] = probability_that_it_holds(p[known], pool_p, anchors)
    return Kinds(probability, share_that_keeps(pool_p), max(0.0, 1 - (_DEVIATIONS / away) ** 2) if away > 0 else 0.0)
