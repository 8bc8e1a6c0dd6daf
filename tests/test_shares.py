"""Proportional parts."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from ost_hf.shares import largest_remainders


def reference(sizes: list[int], total: int) -> list[int]:
    """In fractions, one more row at a time for whoever is furthest below its share."""
    shares = [Fraction(total * size, sum(sizes)) for size in sizes]
    parts = [int(share) for share in shares]
    remainders = [share - part for share, part in zip(shares, parts, strict=True)]
    while sum(parts) < total:
        most = remainders.index(max(remainders))
        parts[most] += 1
        remainders[most] = Fraction(-1)
    return parts


@pytest.mark.parametrize("sizes", [[8], [1] * 8, [5, 3, 0, 5, 3], [64, 16, 32, 16], [70, 37, 21]])
def test_parts_are_those_of_exact_fractions(sizes: list[int]) -> None:
    """Of sizes whose sum is a power of two: their shares are exact as floats, and so are ties."""
    for total in range(sum(sizes) + 1):
        parts = largest_remainders(sizes, total)
        assert parts.tolist() == reference(sizes, total)
        assert parts.sum() == total
        assert (parts <= np.asarray(sizes)).all()
