"""Is a row of the anchors' kind? Told by one vector for each row and each anchor (pooled hidden states).

Raw cosines mostly see what all rows have in common. So vectors are first centred and whitened by the covariance of pool
and anchors together, with a ridge that keeps directions of little variance from being blown up:

    z(x) = unit( (Sigma + r tr(Sigma)/D I)^(-1/2) (x - mean) )

Then a row is compared with the anchors by

    s(x) = log( 1/V sum_v exp( k <z(x), z_v> ) )

For small k, s goes by the mean inner product, which is Fisher's linear discriminant of anchors against pool; for large
k the nearest anchor alone counts. The scale of k is sqrt(d), with d the effective number of directions,
(sum_j e_j)^2 / sum_j e_j^2 of the whitened variances e_j: inner products of unrelated unit vectors have the standard
deviation 1/sqrt(d). k = sqrt(d) / 4 is taken, unless anchors stand out from the pool far more clearly at 2 sqrt(d):
anchors of several kinds, in all directions from the pool's middle, have a mean that says nothing.

An anchor's own s leaves that anchor out. For a pool of the anchors' kind, rows and anchors are then exchangeable, and
p-values of "this row is of the anchors' kind" are close to uniform. (With the covariance of the pool alone they would
not be: where vectors are long and rows few, whitening fits its own rows, and anchors stand out from any pool.)

Letters: N rows, V anchors, D numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ost_hf.evidence.conformal import conformal_p

Floats = NDArray[np.float64]

# r, chosen like what follows on development seeds, with 20 to 100 anchors in pools of 400 and 3,000 rows.
_RIDGE = 0.03
# k in units of sqrt(d), and by how much of the pairs the second must set anchors apart better to be taken.
_SHARPNESS = (0.25, 2.0)
_CLEARLY = 0.1
# Rows at a time: a pool of a million would fill the memory with what is between.
_BLOCK = 16384


@dataclass(frozen=True)
class Relevance:
    """``score [N]``, higher is more like the anchors; ``of_anchors [V]``, each held against the others; ``p [N]``."""

    score: Floats
    of_anchors: Floats
    p: Floats


def relevance(
    rows_ND: NDArray[np.floating], anchors_VD: NDArray[np.floating], typical: NDArray[np.bool_] | None = None
) -> Relevance:
    """How much each row is like the anchors, and p-values of "it is of their kind".

    Args:
        rows_ND: The pool's vectors, without NaN; half precision will do.
        anchors_VD: The anchors' vectors.
        typical: ``[N]``, which rows are the pool that anchors are told from: those that look clean, say, so that
            corruption does not count as another kind. All by default; at least two.

    Raises:
        ValueError: For fewer than two anchors or typical rows: an anchor is held against the others.
    """
    count = len(rows_ND) if typical is None else int(typical.sum())
    if len(anchors_VD) < 2 or count < 2:
        raise ValueError(f"relevance needs two anchors and two rows, got {len(anchors_VD)} and {count}")
    asked = np.ones(len(rows_ND), dtype=bool) if typical is None else typical
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(rows_ND), _BLOCK)]
    parts = [anchors_VD, *(rows_ND[block] for block in blocks)]
    masks = [np.ones(len(anchors_VD), dtype=bool), *(asked[block] for block in blocks)]
    centre_D, covariance_DD = _moments(parts, masks)
    whiten_DD, directions = _whitening(covariance_DD)
    unit_VD = _unit((anchors_VD - centre_D) @ whiten_DD)
    sharpness = [factor * np.sqrt(directions) for factor in _SHARPNESS]
    cosine_VV = unit_VD @ unit_VD.T
    of_anchors = [_of_anchors(cosine_VV, each) for each in sharpness]
    found = [np.empty(len(rows_ND)) for _ in sharpness]
    for block in blocks:
        cosine_BV = _unit((rows_ND[block] - centre_D) @ whiten_DD) @ unit_VD.T
        for scores, each in zip(found, sharpness, strict=True):
            scores[block] = _of_rows(cosine_BV, each)
    linear, nearest = (_separation(*each) for each in zip((one[asked] for one in found), of_anchors, strict=True))
    best = 1 if nearest > linear + _CLEARLY else 0
    return Relevance(found[best], of_anchors[best], conformal_p(-found[best], -of_anchors[best]))


def _moments(parts: Sequence[NDArray[Any]], masks: Sequence[NDArray[np.bool_]]) -> tuple[Floats, Floats]:
    """Mean ``[D]`` and covariance ``[D, D]`` of the rows under the masks, a part at a time."""
    count = sum(int(mask.sum()) for mask in masks)
    centre_D = sum(part[mask].sum(0, dtype=np.float64) for part, mask in zip(parts, masks, strict=True)) / count
    covariance_DD = np.zeros((len(centre_D), len(centre_D)))
    for part, mask in zip(parts, masks, strict=True):
        centred = part[mask] - centre_D
        covariance_DD += centred.T @ centred
    return centre_D, covariance_DD / count


def _whitening(covariance_DD: Floats) -> tuple[Floats, float]:
    """The matrix ``[D, D]`` and the effective number of directions."""
    variance_D, axes_DD = np.linalg.eigh(covariance_DD)
    variance_D = np.maximum(variance_D, 0.0)
    ridge = _RIDGE * variance_D.mean()
    if ridge == 0:  # all rows are the same
        return np.zeros_like(axes_DD), 1.0
    whitened_D = variance_D / (variance_D + ridge)
    return axes_DD / np.sqrt(variance_D + ridge), float(whitened_D.sum() ** 2 / (whitened_D**2).sum())


def _of_rows(cosine_BV: Floats, sharpness: float) -> Floats:
    """The scores s of rows: ``[B]``."""
    # Inner products of unit vectors are at most 1: less 1 nothing overflows, and all scores move alike.
    return np.log(np.exp(sharpness * (cosine_BV - 1)).mean(1))


def _of_anchors(cosine_VV: Floats, sharpness: float) -> Floats:
    """The scores s of anchors, each without itself: ``[V]``."""
    among_VV = np.exp(sharpness * (cosine_VV - 1))
    np.fill_diagonal(among_VV, 0.0)
    return np.log(among_VV.sum(1) / (len(among_VV) - 1))


def _separation(of_rows: Floats, of_anchors: Floats) -> float:
    """The share of pairs of an anchor and a row in which the anchor's score is the higher one (ties count half)."""
    ordered = np.sort(of_rows)
    below_2V = np.stack([np.searchsorted(ordered, of_anchors, "left"), np.searchsorted(ordered, of_anchors, "right")])
    return float(below_2V.mean()) / len(of_rows)


def _unit(vectors: Floats) -> Floats:
    """Each over its length; zero stays zero."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
