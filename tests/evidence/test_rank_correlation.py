"""Ranks, and Spearman's correlation against SciPy's."""

from __future__ import annotations

import math

import pytest
from scipy.stats import spearmanr

from ost_hf.evidence.rank_correlation import ranks, spearman


def test_spearman_is_scipys_with_ties_too() -> None:
    one, other = [1.0, 2.0, 2.0, 5.0, 0.0], [3.0, 1.0, 4.0, 4.0, 0.5]
    assert spearman(one, other) == pytest.approx(spearmanr(one, other).statistic)


def test_nan_has_no_rank() -> None:
    assert math.isnan(spearman([1.0, 2.0, 3.0], [1.0, math.nan, 3.0]))
    assert math.isnan(spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))


def test_equal_values_share_their_rank() -> None:
    assert ranks([5.0, 1.0, 5.0, 7.0]).tolist() == [1.5, 0.0, 1.5, 3.0]
