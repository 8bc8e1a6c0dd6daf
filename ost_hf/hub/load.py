"""Reads a curated dataset back from the Hub."""

from __future__ import annotations

from dataclasses import dataclass

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from ost_hf.selection.kept import Selection
from ost_hf.tables.selection_table import WEIGHT, SelectionMetadata

# What push adds to the pool's own columns; the last of them where rows were weighed.
ADDED = ("example_id", "ost_utility", "ost_rank", WEIGHT)


@dataclass(frozen=True)
class Curated:
    """A curated dataset.

    Attributes:
        kept: The kept rows, with ``example_id``, ``ost_utility``, ``ost_rank``, and ``ost_weight`` where there is one.
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
    if WEIGHT in kept.column_names:  # of rows that are not kept it was not pushed, and is not known
        weights = dict(zip(kept["example_id"], kept[WEIGHT], strict=True))
        columns[WEIGHT] = pa.array([weights.get(name) for name in ids], pa.float64())
    return Selection(pa.table(columns), SelectionMetadata())
