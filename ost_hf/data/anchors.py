"""The anchor set: loaded or drawn, and kept apart from the pool."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from ost_hf.data.config import AnchorConfig
from ost_hf.data.rows import Rows
from ost_hf.errors import DataError
from ost_hf.shares import largest_remainders


def load_anchors(config: AnchorConfig) -> Rows:
    """Loads the anchors, or draws them from a held-out split.

    Raises:
        DataError: If there are fewer rows than asked for, or no column to stratify by.
    """
    rows = Rows.load(config)
    if config.size is None:
        return rows
    if config.size > len(rows):
        raise DataError(f"anchors.size is {config.size}, but {config.path} ({config.split}) has only {len(rows)} rows")
    if config.stratify_by is None:
        strata: Sequence[Any] = [None] * len(rows)
    elif config.stratify_by in rows.dataset.column_names:
        strata = rows.dataset[config.stratify_by]
    else:
        raise DataError(
            f"anchors.stratify_by: there is no column {config.stratify_by!r}; "
            f"there are: {', '.join(rows.dataset.column_names)}"
        )
    return rows.select(stratified_sample(strata, config.size, config.seed))


def stratified_sample(strata: Sequence[Any], size: int, seed: int) -> list[int]:
    """Draws ``size`` indices so that each stratum keeps its share (largest remainders get the rest).

    Args:
        strata: The stratum of each row, any hashable value.
        size: How many to draw.
        seed: The same seed draws the same rows.

    Returns:
        Sorted indices.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, stratum in enumerate(strata):
        members[str(stratum)].append(index)
    rows_of = [members[name] for name in sorted(members)]
    quotas = largest_remainders([len(rows) for rows in rows_of], size).tolist()
    generator = random.Random(seed)
    return sorted(i for rows, quota in zip(rows_of, quotas, strict=True) for i in generator.sample(rows, quota))


def refuse_overlap(pool: Rows, anchors: Rows) -> None:
    """Looks for anchors in the pool by their content alone, before any costlier search.

    Args:
        pool: The candidates.
        anchors: The anchors.

    Raises:
        DataError: If a row of the pool has the content of an anchor.
    """
    known = set(anchors.content_hashes)
    rows = [row for row, content_hash in enumerate(pool.content_hashes) if content_hash in known]
    if rows:
        raise DataError(
            f"{len(rows)} rows of the pool are also anchors, such as row {rows[0]} ({pool.example_ids[rows[0]]}); "
            "an anchor would vouch for itself. Hold the anchors out, or set anchors.overlap to drop"
        )
