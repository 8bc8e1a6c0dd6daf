"""Columns of batches, and the rows that are filled with them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ost_hf.tables.columns import SCHEMA, Columns, TableRows, checked, joined, put, take

NAN, INF = float("nan"), float("inf")


def texts(*values: str) -> np.ndarray:
    return np.array(values, dtype=object)


def a_batch(first: int, count: int) -> Columns:
    """Rows that tell which they are, in every column."""
    numbers = np.arange(first, first + count, dtype=np.float64)
    return {"utility": numbers, "sketch": np.stack([numbers, -numbers], axis=1), "status": texts(*["ok"] * count)}


def same(one: Columns, other: Columns) -> bool:
    return set(one) == set(other) and all(
        np.array_equal(values, other[name], equal_nan=values.dtype != object) for name, values in one.items()
    )


def begun(*rows: int, status: str = "ok", detail: str = "") -> TableRows:
    table = TableRows()
    for row in rows:
        table.begin(f"id-{row}", row, 10 * row, status, detail)
    return table


# -- checked


def test_finite_rows_are_ok_and_keep_their_numbers() -> None:
    given = {"utility": np.array([1.0, 2.0]), "loss": np.array([0.5, 0.25]), "sketch": np.ones((2, 3))}
    found = checked(given)
    assert found["status"].tolist() == ["ok", "ok"]
    assert found["detail"].tolist() == ["", ""]
    for name, values in given.items():
        np.testing.assert_array_equal(found[name], values)
    assert found["sketch"].dtype == np.float32


@pytest.mark.parametrize(
    ("utility", "loss", "kept_loss"),
    [(NAN, 0.5, 0.5), (INF, 0.5, 0.5), (1.0, NAN, NAN), (1.0, -INF, NAN), (NAN, NAN, NAN)],
)
def test_a_row_that_is_not_finite_loses_its_numbers_and_says_what_they_were(
    utility: float, loss: float, kept_loss: float
) -> None:
    found = checked(
        {
            "utility": np.array([3.0, utility]),
            "loss": np.array([0.1, loss]),
            "grad_norm": np.array([7.0, 8.0]),
            "sketch": np.ones((2, 2)),
        }
    )
    assert found["status"].tolist() == ["ok", "non_finite"]
    assert found["detail"].tolist() == ["", f"utility {utility}, loss {loss}"]
    np.testing.assert_array_equal(found["utility"], [3.0, NAN])
    # A finite loss is worth knowing all the same.
    np.testing.assert_array_equal(found["loss"], [0.1, kept_loss])
    np.testing.assert_array_equal(found["grad_norm"], [7.0, NAN])
    np.testing.assert_array_equal(found["sketch"], [[1, 1], [NAN, NAN]])


def test_a_status_of_the_scorers_own_stands_and_takes_the_numbers() -> None:
    found = checked(
        {
            "utility": np.array([NAN, 2.0, 3.0]),
            "status": texts("no_score", "odd", "ok"),
            "detail": texts("column rating is empty", "", "as asked"),
        }
    )
    assert found["status"].tolist() == ["no_score", "odd", "ok"]
    assert found["detail"].tolist() == ["column rating is empty", "", "as asked"]
    np.testing.assert_array_equal(found["utility"], [NAN, NAN, 3.0])


def test_a_loss_may_be_missing_where_rows_speak_for_themselves() -> None:
    columns = {"utility": np.array([1.0, 2.0]), "loss": np.array([NAN, 0.5])}
    assert checked(columns)["status"].tolist() == ["non_finite", "ok"]
    found = checked({**columns, "status": texts("ok", "ok")})
    assert found["status"].tolist() == ["ok", "ok"]
    np.testing.assert_array_equal(found["utility"], [1.0, 2.0])


def test_checking_leaves_its_argument_alone() -> None:
    given = {"utility": np.array([NAN]), "grad_norm": np.array([1.0]), "status": texts("ok")}
    checked(given)
    assert given["grad_norm"].tolist() == [1.0]
    assert given["status"].tolist() == ["ok"]


# -- joined, take, put


def test_joined_pieces_are_the_whole() -> None:
    whole = a_batch(0, 6)
    for sizes in ([6], [1, 5], [2, 2, 2], [3, 0, 3]):
        starts = np.cumsum([0, *sizes])
        pieces = [take(whole, range(start, start + size)) for start, size in zip(starts, sizes, strict=False)]
        assert same(joined(pieces), whole)


def test_a_column_that_a_batch_lacks_has_no_number_there() -> None:
    whole = joined([a_batch(0, 2), {"utility": np.array([9.0]), "status": texts("out_of_memory")}, a_batch(2, 1)])
    np.testing.assert_array_equal(whole["utility"], [0, 1, 9, 2])
    np.testing.assert_array_equal(whole["sketch"], [[0, 0], [1, -1], [NAN, NAN], [2, -2]])
    assert whole["status"].tolist() == ["ok", "ok", "out_of_memory", "ok"]


@pytest.mark.parametrize("place", [0, 2, 3])
def test_put_replaces_one_row_and_no_other(place: int) -> None:
    one = a_batch(100, 1)
    found = put(a_batch(0, 4), place, one)
    expected = [0.0, 1.0, 2.0, 3.0]
    expected[place] = 100.0
    assert found["utility"].tolist() == expected
    assert found["sketch"][:, 1].tolist() == [-number for number in expected]
    # A row that is put with a column of its own brings it along.
    more = put(a_batch(0, 4), place, {**one, "late": np.array([5.0])})
    np.testing.assert_array_equal(more["late"], [5.0 if row == place else NAN for row in range(4)])


# -- TableRows


def test_rows_without_a_number_have_empty_cells() -> None:
    table = begun(0, 1, status="too_long", detail="600 tokens").table()
    assert table.schema.equals(SCHEMA)
    assert table.to_pylist() == [
        {
            "example_id": f"id-{row}", "row": row, "utility": None, "utility_se": None, "loss": None,
            "tokens": 10 * row, "status": "too_long", "detail": "600 tokens",
        }
        for row in (0, 1)
    ]  # fmt: skip


def test_a_table_of_no_rows_has_its_columns() -> None:
    assert TableRows().table().schema.equals(SCHEMA)


def test_the_table_does_not_depend_on_the_order_of_rows_or_on_batches() -> None:
    expected: list[dict[str, Any]] | None = None
    for seed in range(4):
        draw = random.Random(seed)
        rows = draw.sample(range(7), 7)
        table = begun(*rows)
        places = draw.sample(range(7), 7)
        cut = draw.randint(1, 6)
        for batch in (places[:cut], places[cut:]):
            numbers = np.array([rows[place] for place in batch], dtype=np.float64)
            table.fill(batch, {"utility": numbers, "sketch": np.stack([numbers, -numbers], axis=1)})
        found = table.table().to_pylist()
        assert [record["row"] for record in found] == list(range(7))
        assert all(record["utility"] == record["row"] == record["sketch"][0] for record in found)
        expected = expected or found
        assert found == expected


def test_further_columns_stand_behind_the_usual_ones_in_order() -> None:
    table = begun(0)
    table.fill([0], {"utility": np.array([1.0]), "b": np.array([2.0]), "a": np.array([3.0])})
    assert table.table().column_names == [*SCHEMA.names, "a", "b"]


def test_a_column_of_some_rows_is_empty_in_the_others() -> None:
    table = begun(0, 1, 2)
    table.fill([2], {"utility": np.array([2.0]), "grad_norm": np.array([5.0]), "sketch": np.array([[1.0, 2.0]])})
    table.fill([0], {"utility": np.array([0.5])})
    found = table.table()
    assert found["utility"].to_pylist() == [0.5, None, 2.0]
    assert found["grad_norm"].to_pylist() == [None, None, 5.0]
    assert found["sketch"].to_pylist() == [None, None, [1.0, 2.0]]
    assert found.schema.field("sketch").type == pa.list_(pa.float32())


def test_a_vector_of_nan_is_no_vector() -> None:
    table = begun(0, 1)
    columns = {"utility": np.array([NAN, 1.0]), "sketch": np.array([[3.0, 4.0], [1.0, 2.0]])}
    table.fill([0, 1], checked(columns))
    assert table.table()["sketch"].to_pylist() == [None, [1.0, 2.0]]
    # A batch without any vector may have the column as numbers.
    table = begun(0, 1)
    table.fill([0], {"utility": np.array([1.0]), "sketch": np.array([NAN])})
    table.fill([1], {"utility": np.array([1.0]), "sketch": np.array([[1.0, 2.0]])})
    assert table.table()["sketch"].to_pylist() == [None, [1.0, 2.0]]


def test_statuses_of_a_scorer_replace_those_of_the_encoder_but_not_by_ok() -> None:
    table = begun(0, 1, 2, status="truncated", detail="cut to 512 tokens")
    table.fill(
        [0, 1, 2],
        {
            "utility": np.array([1.0, NAN, 3.0]),
            "status": texts("ok", "judge_failed", "ok"),
            "detail": texts("", "no answer", "rated"),
        },
    )
    found = table.table()
    assert found["status"].to_pylist() == ["truncated", "judge_failed", "truncated"]
    assert found["detail"].to_pylist() == ["cut to 512 tokens", "no answer", "rated"]
