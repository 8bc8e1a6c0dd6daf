"""Conformal p-values: is a row as clean as rows that are known to be clean?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

# Rows with a p-value up to this look corrupted: they are not learnt from, their share is evidence of the whole pool,
# and where that shows no corruption they come last. Chosen on development seeds, for the first of the three: with 0.2
# the second look's proxies lose many hard clean rows, and then take such rows for corrupted ones.
_LEVEL = 0.05
# Rows with a p-value above this are the pool that other kinds of rows are told from, if they are so large a part of it.
_CLEAN_ABOVE = 0.2
_ENOUGH = 0.1


def conformal_p(scores: ArrayLike, calibration: ArrayLike) -> np.ndarray:
    """P-values of the hypothesis that a row is exchangeable with the calibration rows.

    Args:
        scores: [N], nonconformity scores: higher is less like a clean row.
        calibration: [V], those of rows known to be clean.

    Returns:
        [N], ``(1 + #{calibration >= score}) / (V + 1)``, between 1 / (V + 1) and 1 (Vovk et al. 2005).
    """
    ordered = np.sort(np.asarray(calibration, dtype=np.float64))
    below = np.searchsorted(ordered, np.asarray(scores, dtype=np.float64), side="left")
    return (1 + len(ordered) - below) / (len(ordered) + 1)


def mean_by_chance(rows: int, anchors: int) -> tuple[float, float]:
    """Expectation and standard deviation of a pool's mean p-value if all rows are like the anchors (Mann-Whitney).

    Args:
        rows: N.
        anchors: V.
    """
    variance = anchors * (anchors + rows + 1) / (12 * rows * (anchors + 1) ** 2)
    return (1 + least_p(anchors)) / 2, float(np.sqrt(variance))


def least_p(anchors: int) -> float:
    """The p-value of a row whose score is above that of all anchors: none is smaller."""
    return 1 / (1 + anchors)


def small_up_to(anchors: int) -> float:
    """Up to where a p-value made with so many anchors counts as small: 0.05, or the smallest there can be."""
    return max(_LEVEL, least_p(anchors))


def looks_clean(p: np.ndarray) -> np.ndarray:
    """Which rows look clean; all of them where hardly any does.

    Args:
        p: ``[N]``, NaN for a row of which nothing tells: it does not look clean.

    Returns:
        ``[N]``, booleans.
    """
    clean = p > _CLEAN_ABOVE
    return clean if clean.sum() >= max(2, _ENOUGH * len(p)) else np.ones(len(p), dtype=bool)
