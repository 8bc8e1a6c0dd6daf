"""Which rows of a score table are of the anchors' kind: :mod:`ost_hf.evidence.relevance` on its vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ost_hf.evidence.relevance import relevance
from ost_hf.evidence.two_groups import probability_that_it_holds, share_that_keeps
from ost_hf.selection.columns import matrix

Floats = NDArray[np.float64]

# Standard deviations of the pool's mean p-value from its expectation up to which nothing is made of it.
_DEVIATIONS = 3


@dataclass(frozen=True)
class Kinds:
    """How the pool's rows stand to the anchors' kind.

    ``probability [rows]`` is that of being of this kind, NaN for a row without a vector; ``share`` is the estimated
    share of the pool that is; ``weight`` says how surely pool and anchors differ: 0 where chance could have it so,
    near 1 where it could not.
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
    if of_rows is None or of_anchors is None or len(of_rows) < 2 or len(of_anchors) < 2:
        return None
    p = relevance(of_rows.astype(np.float64), of_anchors.astype(np.float64)).p
    count = len(of_anchors)
    expected = (1 + 1 / (count + 1)) / 2
    variance = count * (count + len(p) + 1) / (12 * len(p) * (count + 1) ** 2)
    away = (expected - float(p.mean())) / math.sqrt(variance)
    probability = np.full(len(scores), np.nan)
    probability[places] = probability_that_it_holds(p, p, count)
    return Kinds(probability, share_that_keeps(p), max(0.0, 1 - (_DEVIATIONS / away) ** 2) if away > 0 else 0.0)
