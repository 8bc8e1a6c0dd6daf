"""DEITA's diversity filter: the best rows that are not near one already taken (arXiv 2312.15685).

Rows are visited by falling utility. A row is taken if its cosine distance to the nearest row taken so far is above the
threshold:

    min_{j taken} (1 - cos(e_i, e_j)) > threshold

Letters: N rows, D embedding size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ost_hf.errors import DataError, require_range
from ost_hf.selection.config import DEITA_THRESHOLD

# Rows compared at once: two blocks' similarities and copies are all the memory that is needed beside the embeddings.
_BLOCK = 1024

Array = np.ndarray[Any, np.dtype[Any]]


def diverse_order(
    utility: Sequence[float],
    embeddings: Array,
    threshold: float = DEITA_THRESHOLD,
    keys: Sequence[str] | None = None,
    count: int | None = None,
) -> list[int]:
    """The rows that the filter takes, in the order in which it takes them.

    Args:
        utility: ``[N]``, higher is better.
        embeddings: ``[N, D]``, of any length but zero; compared in float32.
        threshold: Least cosine distance, in (0, 2).
        keys: Order rows of equal utility, such as their ``example_id``; by default their place does.
        count: Stop after so many rows.

    Returns:
        Places in ``utility``, best first.

    Raises:
        ConfigError: If the threshold or the count is out of range.
        DataError: If the lengths differ, or a utility or an embedding is not finite or the latter zero.
    """
    require_range("threshold", threshold, above=0, at_most=2)
    require_range("count", count, at_least=1)
    embeddings = np.asarray(embeddings)
    names = list(range(len(utility))) if keys is None else list(keys)
    _check(utility, embeddings, names)
    order = sorted(range(len(utility)), key=lambda place: (-utility[place], names[place]))
    taken: list[int] = []
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        unit = _unit(embeddings[block])
        near = np.zeros(len(block), dtype=bool)
        for first in range(0, len(taken), _BLOCK):
            others = _unit(embeddings[taken[first : first + _BLOCK]])
            near |= _too_near(unit, others, threshold).any(axis=1)
        within = _too_near(unit, unit, threshold)
        for number, place in enumerate(block):
            if near[number]:
                continue
            taken.append(place)
            if count is not None and len(taken) == count:
                return taken
            # Those that come later in the block and are near this one are out.
            near |= within[number]
    return taken


def _too_near(rows: Array, others: Array, threshold: float) -> Array:
    return 1 - rows @ others.T <= threshold


def _unit(vectors: Array) -> Array:
    wide = vectors.astype(np.float64)
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)


def _check(utility: Sequence[float], embeddings: Array, names: Sequence[Any]) -> None:
    count = len(utility)
    if embeddings.ndim != 2 or len(embeddings) != count or len(names) != count:
        raise DataError(
            f"{count} utilities need as many embeddings [N, D] and keys, got embeddings {list(embeddings.shape)} and "
            f"{len(names)} keys"
        )
    for start in range(0, count, _BLOCK):
        piece = embeddings[start : start + _BLOCK].astype(np.float64)
        sizes = np.linalg.norm(piece, axis=1) * np.isfinite(utility[start : start + _BLOCK])
        bad = np.flatnonzero(~(np.isfinite(sizes) & (sizes > 0)))
        if len(bad):
            raise DataError(
                f"row {names[start + bad[0]]} has no finite utility or no usable embedding: give the filter the rows "
                "that have both"
            )
