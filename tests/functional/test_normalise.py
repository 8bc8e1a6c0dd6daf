"""Normalisations of the utility."""

from __future__ import annotations

import pytest
import torch

from ost_hf.functional.normalise import DIVIDED, divisor

LOSS = torch.tensor([2.0, 0.5, 0.0])
TOKENS = torch.tensor([4, 1, 2])
NORM = torch.tensor([5.0, 2.0, 0.0])


def test_each_divisor_is_its_formula() -> None:
    raw = torch.tensor([1.0, -2.0, 0.0])
    expected = {
        "raw": [1.0, -2.0, 0.0],
        "raw_per_sample": [4.0, -2.0, 0.0],
        "per_gradient_norm": [0.2, -1.0, 0.0],
        "relative": [0.5, -4.0, 0.0],
    }
    assert set(expected) == set(DIVIDED)
    for utility, values in expected.items():
        torch.testing.assert_close(raw / divisor(utility, LOSS, TOKENS, NORM), torch.tensor(values))


def test_unknown_names_and_missing_norms_are_refused() -> None:
    with pytest.raises(ValueError, match="utility must be one of raw, raw_per_sample"):
        divisor("mean_cosine", LOSS, TOKENS)
    with pytest.raises(ValueError, match="per_gradient_norm needs"):
        divisor("per_gradient_norm", LOSS, TOKENS)
