"""How many rows a share of a pool is. Standard library only: ``--help`` reads this."""

from __future__ import annotations

import math


def quota_of(ratio: float, size: int) -> int:
    """A share of a pool in rows: rounded, halves up, and one at least.

    Args:
        ratio: The share, in (0, 1].
        size: Rows of the pool.
    """
    return max(1, math.floor(ratio * size + 0.5))
