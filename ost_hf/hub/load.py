"""Reads a curated dataset back from the Hub."""

from __future__ import annotations

from dataclasses import dataclass

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from ost_hf.selection.kept import Selection
from ost_hf.selection.marks import ON_ROWS
from ost_hf.tables.selection_table import SelectionMetadata, selection_schema

# What push adds to the pool's own columns; the last ones where there are weights or masked turns.
ADDED = ("example_id", "ost_utility", "ost_rank", *ON_ROWS.values())


@dataclass(frozen=True)
class Curated:
    """A curated dataset.

    Attributes:
        kept: The kept rows, with ``example_id``, ``ost_utility``, ``ost_rank``; and weights and masked turns, if any.
        scores: The score table: one row for every row of the pool.
        selection: Which rows of the pool are kept, by id and rank.
    """

    kept: datasets.Dataset
    scores: datasets.Dataset
    selection: Selection


def load_curated(repo_id: str, *, revision: str | None = None) -> Curated:
    """Loads what ``push_curated`` has pushed.

    Args:
        repo_id: The dataset repository.
        revision: Branch, tag or commit; the main branch by default.

    Example:
        >>> curated = ost_hf.load_curated("me/curated")
        >>> curated.kept  # doctest: +SKIP
        Dataset({features: [..., 'example_id', 'ost_utility', 'ost_rank'], num_rows: 900})
        >>> OSTTrainer(..., train_dataset=pool, selection=curated.selection).train()  # doctest: +SKIP
    """
    kept = datasets.load_dataset(repo_id, split="train", revision=revision)
    scores = datasets.load_dataset(repo_id, "scores", split="train", revision=revision)
    return Curated(kept, scores, _selection_of(kept, scores))


def _selection_of(kept: datasets.Dataset, scores: datasets.Dataset) -> Selection:
    """The selection as far as the kept rows tell: their ranks and their utilities, which may be aggregated ones."""
    ranks = dict(zip(kept["example_id"], kept["ost_rank"], strict=True))
    utilities = dict(zip(kept["example_id"], kept["ost_utility"], strict=True))
    table = scores.with_format("arrow")[:]
    ids = table["example_id"].to_pylist()
    of_scores = table["utility"].to_pylist()
    is_kept = pa.array([name in ranks for name in ids])
    columns = {
        "example_id": table["example_id"],
        "row": table["row"],
        "utility": pa.array([utilities.get(name, own) for name, own in zip(ids, of_scores, strict=True)], pa.float64()),
        "rank": pa.array([ranks.get(name) for name in ids], pa.int64()),
        "kept": is_kept,
        "reason": pc.if_else(is_kept, "kept", "not kept"),
    }
    for column, name in ON_ROWS.items():
        if name in kept.column_names:  # of rows that are not kept it was not pushed, and is not known
            values = dict(zip(kept["example_id"], kept[name], strict=True))
            columns[column] = pa.array([values.get(one) for one in ids], selection_schema(column).field(column).type)
    return Selection(pa.table(columns), SelectionMetadata())
