"""Turns that look corrupted are masked, and rows of nothing else are not kept."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from ost_hf.errors import ConfigError, DataError
from ost_hf.selection.config import SelectionConfig
from ost_hf.selection.selector import select_rows

TURNS: list[list[float] | None] = [[0.5, 0.01, 0.9], [0.02, 0.03], [0.4], [0.05, 0.06], None, [0.01, 0.8]]
COUNT = len(TURNS)


def scores(anchors: int = 100, **columns: Any) -> pa.Table:
    table = {
        "example_id": [f"id{row}" for row in range(COUNT)],
        "row": list(range(COUNT)),
        "utility": [float(COUNT - row) for row in range(COUNT)],
        "status": ["ok"] * COUNT,
        "turn_corrupted_p": pa.array(TURNS, pa.list_(pa.float32())),
        "turn_p_value_anchors": [anchors] * COUNT,
    }
    return pa.table({**table, **columns})


def selected(table: pa.Table, **settings: Any) -> list[dict[str, Any]]:
    config = SelectionConfig(order="top", mask_turns=True, **{"keep_ratio": 1.0, **settings})
    selection = select_rows(table, config)
    assert "turns of" in selection.explanation
    return selection.table.to_pylist()


def test_small_p_values_mask_turns_of_kept_rows() -> None:
    rows = selected(scores())
    assert [row["kept"] for row in rows] == [True, False, True, True, True, True]
    assert rows[1]["reason"] == "every turn looks corrupted"
    assert [row["masked_turns"] for row in rows] == [[1], None, [], [0], [], [0]]
    assert [row["turns"] for row in rows] == [3, 2, 1, 2, None, 2]


def test_rows_that_are_not_kept_have_no_masked_turns() -> None:
    rows = selected(scores(), keep_ratio=None, keep_count=1)
    assert [row["masked_turns"] for row in rows] == [[1], *[None] * (COUNT - 1)]


def test_bound_is_the_smallest_p_value_of_few_anchors() -> None:
    least = 1 / 11
    lists = pa.array([[least, 2 * least]] * COUNT, pa.list_(pa.float32()))
    table = scores(anchors=10).drop_columns("turn_corrupted_p").append_column("turn_corrupted_p", lists)
    assert [row["masked_turns"] for row in selected(table)] == [[0]] * COUNT


def test_scores_without_turns_are_refused() -> None:
    table = scores().drop_columns(["turn_corrupted_p", "turn_p_value_anchors"])
    with pytest.raises(
        ConfigError, match=r"selection\.mask_turns goes by columns .*: score with scoring\.per_turn and"
    ):
        selected(table)
    with pytest.raises(DataError, match="does not say how many turns of anchors"):
        selected(scores().drop_columns("turn_p_value_anchors"))
