"""The diversity filter against a reference that compares one row after the other."""

from __future__ import annotations

import numpy as np
import pytest

from ost_hf.errors import ConfigError, DataError
from ost_hf.selection import diversity
from ost_hf.selection.diversity import diverse_order


def one_by_one(utility, embeddings, threshold, keys):
    """The definition in float64: every row against every row taken."""
    taken: list[int] = []
    for place in sorted(range(len(utility)), key=lambda place: (-utility[place], keys[place])):
        row = embeddings[place].astype(np.float64)
        distances = [
            1 - row @ other / (np.linalg.norm(row) * np.linalg.norm(other))
            for other in (embeddings[number].astype(np.float64) for number in taken)
        ]
        if not distances or min(distances) > threshold:
            taken.append(place)
    return taken


@pytest.fixture
def crowd() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Three hundred rows around forty centres, with equal utilities and exact copies among them."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(40, 16))
    embeddings = centres[generator.integers(40, size=300)] + 0.2 * generator.normal(size=(300, 16))
    embeddings *= generator.uniform(0.1, 10, size=(300, 1))
    embeddings[200:220] = embeddings[:20]
    utility = generator.integers(1, 37, size=300).astype(float)
    keys = [f"id-{number:03d}" for number in generator.permutation(300)]
    return utility, embeddings.astype(np.float32), keys


@pytest.mark.parametrize("threshold", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("block", [1, 7, 64, 1024])
def test_filter_is_the_definition_whatever_the_block(crowd, threshold: float, block: int, monkeypatch) -> None:
    utility, embeddings, keys = crowd
    monkeypatch.setattr(diversity, "_BLOCK", block)
    taken = diverse_order(utility, embeddings, threshold, keys)
    assert taken == one_by_one(utility, embeddings, threshold, keys)
    assert 1 < len(taken) < 300


def test_result_does_not_depend_on_the_order_of_the_pool(crowd) -> None:
    utility, embeddings, keys = crowd
    shuffled = np.random.default_rng(1).permutation(len(utility))
    taken = diverse_order(utility[shuffled], embeddings[shuffled], 0.1, [keys[place] for place in shuffled])
    assert [keys[shuffled[place]] for place in taken] == [
        keys[place] for place in diverse_order(utility, embeddings, 0.1, keys)
    ]


def test_exact_copies_are_taken_once() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    assert diverse_order([1.0] * 10, np.concatenate([vectors, 3 * vectors]), 1e-4) == [0, 1, 2, 3, 4]


def test_a_count_stops_the_filter(crowd) -> None:
    utility, embeddings, keys = crowd
    whole = diverse_order(utility, embeddings, keys=keys)
    assert diverse_order(utility, embeddings, keys=keys, count=9) == whole[:9]


def test_nothing_comes_of_nothing() -> None:
    assert diverse_order([], np.zeros((0, 4))) == []


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"threshold": 0}, ConfigError, "threshold must be a number > 0 and <= 2, got 0"),
        ({"count": 0}, ConfigError, "count must be a number >= 1, got 0"),
        ({"embeddings": np.ones((2, 4))}, DataError, r"3 utilities need as many embeddings \[N, D\] and keys"),
        ({"keys": ["a"]}, DataError, "3 utilities need as many embeddings"),
        ({"embeddings": np.diag([1.0, 0.0, 1.0])}, DataError, "row b has no finite utility or no usable embedding"),
        ({"embeddings": np.diag([1.0, 1.0, np.inf])}, DataError, "row c has no finite utility or no usable"),
        ({"utility": [np.nan, 1.0, 1.0]}, DataError, "row a has no finite utility or no usable embedding"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, error, message: str) -> None:
    given = {"utility": [1.0, 2.0, 3.0], "embeddings": np.eye(3), "keys": ["a", "b", "c"], **change}
    with pytest.raises(error, match=message):
        diverse_order(**given)
