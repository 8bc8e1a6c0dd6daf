"""Shares of a pool in whole rows, and proportional parts."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from ost_hf.scoring.cascade.options import CascadeOptions
from ost_hf.scoring.cascade.run import agree, band_rows
from ost_hf.selection.config import SelectionConfig
from ost_hf.shares import largest_remainders, quota_of


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


@pytest.mark.parametrize(("ratio", "size", "rows"), [(0.5, 9, 5), (0.5, 11, 6), (0.2, 12, 2), (1e-4, 3, 1), (1, 7, 7)])
def test_cascade_looks_at_the_cut_that_selection_makes(ratio: float, size: int, rows: int) -> None:
    assert quota_of(ratio, size) == rows
    assert SelectionConfig(keep_ratio=ratio).quota(size) == rows
    utilities = {row: -float(row) for row in range(size)}
    options = CascadeOptions(keep_ratio=ratio, band=2 / size)
    assert agree(utilities, {}, utilities, set(), quota_of(options.share, size), 1.0).kept == rows
    assert band_rows(utilities, size, options) == {row for row in (rows - 1, rows) if row < size}
