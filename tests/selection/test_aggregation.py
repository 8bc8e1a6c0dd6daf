"""Aggregation over groups."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from ost_hf.selection import config
from ost_hf.selection.aggregation import AGGREGATIONS, aggregate

UTILITY = np.array([[0.9, 0.0], [0.2, 0.3], [0.1, 0.8], [-0.5, -0.1]])


def order(how: str) -> list[int]:
    return np.argsort(-aggregate(UTILITY, how), kind="stable").tolist()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("mean", [0, 2, 1, 3]),  # .45 .25 .45 -.3; equal ones by place
        ("min", [1, 2, 0, 3]),
        ("max", [0, 2, 1, 3]),
        ("round_robin", [0, 2, 1, 3]),
    ],
)
def test_orders(how: str, expected: list[int]) -> None:
    assert order(how) == expected


def test_a_vote_outweighs_any_rank() -> None:
    """Two groups rank row 1 just above the middle; row 0 is best in one group and last in the others."""
    utility = np.array([[9.0, 0.0, 0.0], [3.0, 3.0, 3.0], [1.0, 1.0, 4.0], [2.0, 2.0, 2.0]])
    score = aggregate(utility, "vote")
    assert np.floor(score).tolist() == [1, 3, 1, 1]


def test_votes_have_no_ties_where_ranks_differ() -> None:
    utility = np.random.default_rng(0).random((200, 5))
    assert len(np.unique(aggregate(utility, "vote"))) > 150


@pytest.fixture(params=[(30, 4), (41, 3), (3, 5), (1, 2)], ids=str)
def tied(request: pytest.FixtureRequest) -> np.ndarray:
    """Utilities of rows in groups, among them many equal ones."""
    return np.random.default_rng(1).integers(-6, 6, size=request.param).astype(np.float64)


def test_votes_are_counted_and_ties_broken_by_the_mean_rank(tied: np.ndarray) -> None:
    """A slow reference: ranks are counted row against row."""
    count, groups = tied.shape
    keys = []
    for row in range(count):
        votes, sum_of_ranks = 0, Fraction(0)
        for group in tied.T.tolist():
            rank = sum(other < group[row] for other in group) + Fraction(group.count(group[row]) - 1, 2)
            votes += rank > Fraction(count - 1, 2)
            sum_of_ranks += rank
        keys.append((votes, sum_of_ranks / groups))
    score = aggregate(tied, "vote")
    assert np.floor(score).tolist() == [votes for votes, _ in keys]
    # Equal where all is equal, and otherwise in the same order.
    assert np.unique(score, return_inverse=True)[1].tolist() == [sorted(set(keys)).index(key) for key in keys]


def test_turns_go_round(tied: np.ndarray) -> None:
    """A slow reference: the groups take turns, each takes its best row that is left, the first of equal ones."""
    left, expected = list(range(len(tied))), []
    while left:
        for group in tied.T:
            if left:
                best = max(left, key=lambda row: group[row])
                left.remove(best)
                expected.append(best)
    assert np.argsort(-aggregate(tied, "round_robin")).tolist() == expected


@pytest.mark.parametrize("how", list(AGGREGATIONS))
def test_the_order_of_candidates_does_not_matter(how: str) -> None:
    utility = np.random.default_rng(2).random((40, 3))
    permutation = np.random.default_rng(3).permutation(40)
    np.testing.assert_allclose(aggregate(utility, how)[permutation], aggregate(utility[permutation], how))


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ValueError, match="aggregation must be one of mean, min, max, vote, round_robin, got 'median'"):
        aggregate(UTILITY, "median")
    with pytest.raises(ValueError, match="with a group at least"):
        aggregate(np.zeros((3, 0)), "mean")
    with pytest.raises(ValueError, match="must not be missing"):
        aggregate(np.array([[np.nan]]), "mean")


def test_the_configuration_knows_all_names() -> None:
    assert tuple(AGGREGATIONS) == config.AGGREGATIONS
