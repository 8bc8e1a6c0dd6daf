"""A share of a pool in whole rows."""

from __future__ import annotations

import pytest

from ost_hf.scoring.cascade import agree, band_rows
from ost_hf.scoring.config import ScoringConfig
from ost_hf.selection.config import SelectionConfig
from ost_hf.shares import quota_of


@pytest.mark.parametrize(("ratio", "size", "rows"), [(0.5, 9, 5), (0.5, 11, 6), (0.2, 12, 2), (1e-4, 3, 1), (1, 7, 7)])
def test_cascade_looks_at_the_cut_that_selection_makes(ratio: float, size: int, rows: int) -> None:
    assert quota_of(ratio, size) == rows
    assert SelectionConfig(keep_ratio=ratio).quota(size) == rows
    utilities = {row: -float(row) for row in range(size)}
    assert agree(utilities, {}, utilities, set(), ratio, size, 1.0).kept == rows
    config = ScoringConfig(utility="raw", estimator="cascade", cascade_keep_ratio=ratio, cascade_band=2 / size)
    assert band_rows(utilities, size, config) == {row for row in (rows - 1, rows) if row < size}
