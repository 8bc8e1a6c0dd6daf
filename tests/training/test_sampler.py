"""OSTSampler."""

from __future__ import annotations

from collections import Counter

import pytest
from torch.utils.data import DataLoader, Sampler

from ost_hf.errors import ConfigError, DataError
from ost_hf.training.sampler import SAMPLING_ORDERS, OSTSampler

KEPT = [3, 14, 15, 92, 65, 35, 89, 79]
UTILITIES = [0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6]


def sampler(order: str = "shuffled", **settings) -> OSTSampler:
    return OSTSampler(KEPT, UTILITIES, order, **settings)


def test_it_is_a_torch_sampler_over_the_kept_rows() -> None:
    assert isinstance(sampler(), Sampler)
    assert len(sampler()) == 8
    assert sorted(sampler()) == sorted(KEPT)
    assert sorted(index.item() for index in DataLoader(range(100), sampler=sampler())) == sorted(KEPT)


@pytest.mark.parametrize("order", SAMPLING_ORDERS)
def test_order_is_a_function_of_seed_and_epoch(order: str) -> None:
    first, second = sampler(order, seed=5), sampler(order, seed=5)
    list(first)
    for epoch in (2, 0, 2):
        first.set_epoch(epoch)
        second.set_epoch(epoch)
        assert list(first) == list(second) == list(first)


def test_epochs_and_seeds_differ() -> None:
    orders = set()
    for seed in range(3):
        for epoch in range(3):
            one = sampler(seed=seed)
            one.set_epoch(epoch)
            orders.add(tuple(one))
    assert len(orders) == 9


@pytest.mark.parametrize("utilities", [UTILITIES, None])
def test_ranked_keeps_the_order_of_the_selection_in_every_epoch_whatever_the_utilities(utilities) -> None:
    one = OSTSampler(KEPT, utilities, "ranked")
    assert list(one) == KEPT
    one.set_epoch(4)
    assert list(one) == KEPT


def test_weighted_draws_useful_rows_more_often() -> None:
    one, drawn = sampler("weighted"), Counter[int]()
    for epoch in range(500):
        one.set_epoch(epoch)
        rows = list(one)
        assert len(rows) == 8
        drawn.update(rows)
    assert set(drawn) == set(KEPT)
    counts = [drawn[row] for row in [14, 35, 89, 3]]
    assert counts == sorted(counts, reverse=True)
    # Weights are exp of the standardised utility: the first and last differ by exp(0.8 / sd).
    spread = (sum((u - 0.5) ** 2 for u in UTILITIES) / 8) ** 0.5
    assert drawn[14] / drawn[3] == pytest.approx(2.718281828 ** (0.8 / spread), rel=0.2)


def test_equal_utilities_are_drawn_alike() -> None:
    one, drawn = OSTSampler([1, 2], [0.5, 0.5], "weighted"), Counter[int]()
    for epoch in range(500):
        one.set_epoch(epoch)
        drawn.update(one)
    assert drawn[1] == pytest.approx(drawn[2], rel=0.15)


@pytest.mark.parametrize("order", SAMPLING_ORDERS)
def test_state_continues_in_the_middle_of_an_epoch(order: str) -> None:
    whole = sampler(order, seed=1)
    whole.set_epoch(3)
    rows = list(whole)
    stopped = sampler(order, seed=1)
    stopped.set_epoch(3)
    iterator = iter(stopped)
    head = [next(iterator) for _ in range(3)]
    resumed = sampler(order)
    resumed.load_state_dict(stopped.state_dict())
    assert head + list(resumed) == rows
    assert list(resumed) == rows


def test_abandoned_pass_does_not_shorten_the_next() -> None:
    one = sampler()
    next(iter(one))
    assert len(list(one)) == 8


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match="was given no rows"):
        OSTSampler([])
    with pytest.raises(DataError, match="2 rows but 1 utilities"):
        OSTSampler([1, 2], [0.5])
    with pytest.raises(ConfigError, match="order 'weighted' needs utilities"):
        OSTSampler([1, 2], order="weighted")
    with pytest.raises(ConfigError, match=r"order must be one of .* got 'rank' \(did you mean 'ranked'\?\)"):
        OSTSampler([1, 2], [0.1, 0.2], "rank")
