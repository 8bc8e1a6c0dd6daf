"""Is a row of the anchors' kind? Told by one vector for each row and each anchor (pooled hidden states).

Raw cosines mostly see what all rows have in common. So vectors are first centred and whitened by the pool's covariance,
with a ridge that keeps directions of little variance from being blown up:

    z(x) = unit( (Sigma + r tr(Sigma)/D I)^(-1/2) (x - mean) )

Then a row is compared with the anchors by

    s(x) = log( 1/V sum_v exp( k <z(x), z_v> ) )

For small k, s goes by the mean inner product, which is Fisher's linear discriminant of anchors against pool; for large
k the nearest anchor alone counts. The scale of k is sqrt(d), with d the effective number of directions,
(sum_j e_j)^2 / sum_j e_j^2 of the whitened variances e_j: inner products of unrelated unit vectors have the standard
deviation 1/sqrt(d). k = sqrt(d) / 4 is taken, unless anchors stand out from the pool far more clearly at 2 sqrt(d):
anchors of several kinds, in all directions from the pool's middle, have a mean that says nothing.

An anchor's own s leaves that anchor out. For a pool of the anchors' kind, rows and anchors are then exchangeable, and
p-values of "this row is of the anchors' kind" are close to uniform.

Letters: N rows, V anchors, D numbers of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ost_hf.evidence.conformal import conformal_p

Floats = NDArray[np.float64]

# r, chosen like what follows on development seeds, with 20 to 100 anchors in pools of 400 and 3,000 rows.
_RIDGE = 0.03
# k in units of sqrt(d), and by how much of the pairs the second must set anchors apart better to be taken.
_SHARPNESS = (0.25, 2.0)
_CLEARLY = 0.1


@dataclass(frozen=True)
class Relevance:
    """``score [N]``, higher is more like the anchors; ``of_anchors [V]``, each held against the others; ``p [N]``."""

    score: Floats
    of_anchors: Floats
    p: Floats


def relevance(rows_ND: Floats, anchors_VD: Floats, typical: NDArray[np.bool_] | None = None) -> Relevance:
    """How much each row is like the anchors, and p-values of "it is of their kind".

    Args:
        rows_ND: The pool's vectors, without NaN.
        anchors_VD: The anchors' vectors.
        typical: ``[N]``, which rows are the pool that anchors are told from: those that look clean, say, so that
            corruption does not count as another kind. All by default; at least two.

    Raises:
        ValueError: For fewer than two anchors or typical rows: an anchor is held against the others.
    """
    pool_ND = rows_ND if typical is None else rows_ND[typical]
    if len(anchors_VD) < 2 or len(pool_ND) < 2:
        raise ValueError(f"relevance needs two anchors and two rows, got {len(anchors_VD)} and {len(pool_ND)}")
    centre_D = pool_ND.mean(0, dtype=np.float64)
    whiten_DD, directions = _whitening(pool_ND - centre_D)
    rows_ND, anchors_VD = (_unit((each - centre_D) @ whiten_DD) for each in (rows_ND, anchors_VD))
    scores = [_scores(rows_ND, anchors_VD, factor * np.sqrt(directions)) for factor in _SHARPNESS]
    asked = slice(None) if typical is None else typical
    linear, nearest = (_separation(of_rows[asked], of_anchors) for of_rows, of_anchors in scores)
    of_rows, of_anchors = scores[1] if nearest > linear + _CLEARLY else scores[0]
    return Relevance(of_rows, of_anchors, conformal_p(-of_rows, -of_anchors))


def _whitening(centred_ND: Floats) -> tuple[Floats, float]:
    """The matrix ``[D, D]`` and the effective number of directions."""
    covariance_DD = centred_ND.T @ centred_ND / len(centred_ND)
    variance_D, axes_DD = np.linalg.eigh(covariance_DD)
    variance_D = np.maximum(variance_D, 0.0)
    ridge = _RIDGE * variance_D.mean()
    if ridge == 0:  # all rows are the same
        return np.zeros_like(axes_DD), 1.0
    whitened_D = variance_D / (variance_D + ridge)
    return axes_DD / np.sqrt(variance_D + ridge), float(whitened_D.sum() ** 2 / (whitened_D**2).sum())


def _scores(rows_ND: Floats, anchors_VD: Floats, sharpness: float) -> tuple[Floats, Floats]:
    """S of rows ``[N]``, and of anchors ``[V]``, each without itself."""
    # Inner products of unit vectors are at most 1: less 1 nothing overflows, and all scores move alike.
    of_rows = np.log(np.exp(sharpness * (rows_ND @ anchors_VD.T - 1)).mean(1))
    among_VV = np.exp(sharpness * (anchors_VD @ anchors_VD.T - 1))
    np.fill_diagonal(among_VV, 0.0)
    return of_rows, np.log(among_VV.sum(1) / (len(anchors_VD) - 1))


def _separation(of_rows: Floats, of_anchors: Floats) -> float:
    """The share of pairs of an anchor and a row in which the anchor's score is the higher one (ties count half)."""
    ordered = np.sort(of_rows)
    below_2V = np.stack([np.searchsorted(ordered, of_anchors, "left"), np.searchsorted(ordered, of_anchors, "right")])
    return float(below_2V.mean()) / len(of_rows)


def _unit(vectors: Floats) -> Floats:
    """Each over its length; zero stays zero."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
