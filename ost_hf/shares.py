"""Shares of a pool in whole rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def quota_of(ratio: float, size: int) -> int:
    """A share of a pool in rows: rounded, halves up, and one at least.

    Args:
        ratio: The share, in (0, 1].
        size: Rows of the pool.
    """
    return max(1, math.floor(ratio * size + 0.5))


def largest_remainders(sizes: Sequence[int] | NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Parts of a total in proportion to sizes, rounded down; what is left goes to the largest remainders.

    Args:
        sizes: ``[S]``.
        total: At most the sum of the sizes, so that no part is above its size.

    Returns:
        ``[S]``, together the total. Of equal remainders the first are rounded up.
    """
    sizes = np.asarray(sizes, dtype=np.int64)
    exact = total * sizes / max(1, sizes.sum())
    parts = np.floor(exact).astype(np.int64)
    parts[np.argsort(parts - exact, kind="stable")[: total - int(parts.sum())]] += 1
    return parts
