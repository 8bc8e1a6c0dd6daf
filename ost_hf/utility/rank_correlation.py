"""How alike two rankings of the same candidates are."""

from __future__ import annotations

from typing import Any

import numpy as np


def spearman(one: list[float], other: list[float]) -> float:
    """Spearman's rank correlation; equal values share their mean rank. NaN for a constant list."""

    def ranks(values: list[float]) -> Any:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[inverse]

    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(ranks(one), ranks(other))[0, 1]) if len(one) > 1 else float("nan")
