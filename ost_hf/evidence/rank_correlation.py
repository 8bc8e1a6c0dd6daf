"""Ranks of candidates, and how alike two rankings of the same ones are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks of ``[N]`` values from 0 (lowest) to N - 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[inverse]


def spearman(one: list[float], other: list[float]) -> float:
    """Spearman's rank correlation; equal values share their mean rank. NaN for a list that is constant or has a NaN."""
    if np.isnan(one).any() or np.isnan(other).any():
        return float("nan")
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(ranks(one), ranks(other))[0, 1]) if len(one) > 1 else float("nan")
