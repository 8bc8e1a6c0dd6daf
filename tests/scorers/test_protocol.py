"""What a scorer may say of a batch, and the columns that it becomes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ost_hf.data.encoding.encoded import Encoded
from ost_hf.errors import ConfigError
from ost_hf.scorers.protocol import Score, as_columns, columns_of
from ost_hf.tables.columns import Columns, checked

NAN, INF = float("nan"), float("inf")


class Says:
    """A scorer that always says the same."""

    batch_size = None

    def __init__(self, scores: Any):
        self.scores = scores

    def score(self, batch: list[Encoded]) -> Any:
        return self.scores


def batch_of(count: int) -> list[Encoded]:
    return [Encoded(str(row), row, features={}) for row in range(count)]


def assert_same(one: Columns, other: Columns) -> None:
    assert set(one) == set(other)
    for name, values in one.items():
        assert values.dtype == other[name].dtype
        np.testing.assert_array_equal(values, other[name])


@pytest.mark.parametrize(
    "scores",
    [
        [1.0, -2.0],
        [1, -2],
        (1.0, Score(-2.0)),
        np.array([1.0, -2.0]),
        torch.tensor([1.0, -2.0]),
        [torch.tensor(1.0), np.float32(-2.0)],
        {"utility": [1.0, -2.0]},
        {"utility": np.array([1, -2])},
        {"utility": torch.tensor([1.0, -2.0], dtype=torch.bfloat16, requires_grad=True)},
    ],
)
def test_numbers_columns_and_scores_say_the_same(scores: Any) -> None:
    assert_same(checked(columns_of(Says(scores), batch_of(2))), checked(as_columns([Score(1.0), Score(-2.0)])))


def test_scores_with_everything_are_the_columns_that_they_hold() -> None:
    scores = [
        Score(1.0, loss=0.5, utility_se=0.1, columns={"grad_norm": 2.0, "sketch": [1.0, 2.0]}),
        Score(2.0, loss=0.25, utility_se=0.2, columns={"grad_norm": 3.0, "sketch": [3.0, 4.0]}),
    ]
    columns = {
        "utility": np.array([1.0, 2.0]),
        "loss": torch.tensor([0.5, 0.25]),
        "utility_se": [0.1, 0.2],
        "grad_norm": [2, 3],
        "sketch": torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64),
    }
    assert_same(checked(as_columns(scores)), checked(as_columns(columns)))


def test_what_one_row_lacks_is_no_number_there() -> None:
    found = as_columns([Score(1.0), Score(2.0, loss=0.5, utility_se=0.1, columns={"ifd": 3.0, "sketch": [1.0, 2.0]})])
    for name, value in (("loss", 0.5), ("utility_se", 0.1), ("ifd", 3.0)):
        np.testing.assert_array_equal(found[name], [NAN, value])
    np.testing.assert_array_equal(found["sketch"], [[NAN, NAN], [1.0, 2.0]])
    # A loss that is missing is no loss that is wrong.
    assert checked(found)["status"].tolist() == ["ok", "ok"]
    assert checked(found)["utility"].tolist() == [1.0, 2.0]
    # A column that no row has is none.
    assert set(as_columns([Score(1.0)])) == {"utility", "status", "detail"}


@pytest.mark.parametrize("loss", [NAN, INF, -INF])
def test_a_wrong_loss_takes_the_utility(loss: float) -> None:
    for scores in ([Score(1.0, loss=loss), Score(2.0, loss=0.5)], {"utility": [1.0, 2.0], "loss": [loss, 0.5]}):
        found = checked(as_columns(scores))
        assert found["status"].tolist() == ["non_finite", "ok"]
        assert found["detail"].tolist() == [f"utility 1.0, loss {loss}", ""]
        np.testing.assert_array_equal(found["utility"], [NAN, 2.0])
        np.testing.assert_array_equal(found["loss"], [NAN, 0.5])


def test_a_row_that_cannot_be_judged_says_why() -> None:
    found = checked(as_columns([Score(None, status="too_long", detail="700 tokens"), Score(None), Score(1.0)]))
    assert found["status"].tolist() == ["too_long", "non_finite", "ok"]
    assert found["detail"].tolist() == ["700 tokens", "utility nan, loss None", ""]
    np.testing.assert_array_equal(found["utility"], [NAN, NAN, 1.0])


@pytest.mark.parametrize(
    ("scores", "gave"),
    [
        ([1.0], "'utility': 1, "),
        ([1.0, 2.0, 3.0], "'utility': 3, "),
        ({"utility": [1.0, 2.0], "loss": [1.0]}, r"\{'utility': 2, 'loss': 1\}"),
        ({"loss": [1.0, 2.0]}, r"\{'loss': 2\}"),
        ({"utility": 1.0}, r"\{'utility': 0\}"),
    ],
)
def test_scores_must_be_of_every_row(scores: Any, gave: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"Says\.score must give a number or a Score for each row.*of 2 it gave .*{gave}"
    ):
        columns_of(Says(scores), batch_of(2))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"tokens": [1, 2]}, "gave a column 'tokens' that the table has already: name it otherwise"),
        ({"why": ["good", "bad"]}, "gave a column 'why' that holds no numbers: .*put words into 'detail'"),
    ],
)
def test_columns_that_the_table_could_not_keep_are_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        columns_of(Says({"utility": [1.0, 2.0], **columns}), batch_of(2))
    found = columns_of(Says({"utility": [1.0, None], "detail": ["good", "bad"]}), batch_of(2))
    assert checked(found)["status"].tolist() == ["ok", "non_finite"]
