"""What a selection kept, in a few lines."""

from __future__ import annotations

import pyarrow as pa

from ost_hf.reporting.summary import kept_in_words
from ost_hf.scoring.passes import Part, cost_of_parts
from ost_hf.tables.selection_table import SelectionTable


def selection(count: int, verdicts: list[str | None] | None = None) -> SelectionTable:
    """Every other row kept; rows out of order, as a table made elsewhere may be."""
    rows = list(reversed(range(count)))
    columns = {"example_id": [str(row) for row in rows], "row": rows, "kept": [row % 2 == 0 for row in rows]}
    return SelectionTable(pa.table(columns | ({"verdict": verdicts} if verdicts else {})))


def test_kept_rows_and_verdicts_are_counted() -> None:
    assert kept_in_words(selection(4)) == ["kept 2 of 4 rows"]
    assert kept_in_words(selection(4, ["toxic", "useful", None, "toxic"])) == [
        "kept 2 of 4 rows",
        "verdicts of 3 scored rows: 2 toxic, 1 useful, 0 uncertain",
    ]


def test_what_is_kept_of_each_value_is_told_of_the_most_frequent_ones() -> None:
    assert kept_in_words(selection(5), "source", ["a", "b", "a", "b", "a"])[1:] == [
        "kept by source: a 3 of 3, b 0 of 2"
    ]
    (line,) = kept_in_words(selection(26), "source", [*"aa", *map(str, range(24))])[1:]
    assert line.startswith("kept by source: a 1 of 2, 23 0 of 1, 22 1 of 1, ")
    assert line.endswith(", and 15 more values")


def test_what_the_scores_cost_is_told_last() -> None:
    cost = cost_of_parts({"scoring": Part(10, 2.0)}, 5)
    told = kept_in_words(selection(5), cost=cost)
    assert told[-1] == "selection cost 2 forward passes of the proxy over the pool and 2.0 s: scoring 2"
