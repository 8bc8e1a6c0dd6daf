"""The proxy's training loop."""

from __future__ import annotations

import pytest

from ost_hf.proxy.training import linear_schedule, shuffled_batches


def test_the_schedule_rises_and_falls() -> None:
    rates = linear_schedule(100, 1.0, rise=10)
    assert rates[9] == max(rates) == 1.0
    assert rates[0] == pytest.approx(0.1)
    assert 0 < rates[-1] < 0.02
    assert linear_schedule(1, 0.5, rise=0) == [0.5]


def test_batches_are_full_seeded_and_pass_over_all_rows() -> None:
    batches = shuffled_batches(range(10), size=4, steps=5, seed=1)
    assert [len(batch) for batch in batches] == [4] * 5
    drawn = [row for batch in batches for row in batch]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))
    assert batches == shuffled_batches(range(10), size=4, steps=5, seed=1)
    assert batches != shuffled_batches(range(10), size=4, steps=5, seed=2)
