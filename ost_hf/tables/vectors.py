"""List columns of numbers, one vector for each row, as arrays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray


def matrix(
    table: pa.Table, column: str, places: NDArray[np.int64] | None = None, dtype: DTypeLike = np.float32
) -> NDArray[np.floating] | None:
    """A list column as ``[rows, numbers]``, or the rows at ``places``; ``None`` if there is none, or one lacks it.

    Args:
        table: Any table.
        column: The name of its list column.
        places: Which rows, in this order; all by default.
        dtype: Of the array.
    """
    if column not in table.column_names or not len(table):
        return None
    if places is None:
        places = np.arange(len(table))
    valid = table[column].is_valid().to_numpy()
    if not len(places) or not valid[places].all():
        return None
    size = len(table[column][int(places[0])].values)
    result = np.empty((len(places), size), dtype=dtype)
    target = np.full(len(table), -1, dtype=np.int64)
    target[places] = np.arange(len(places))
    start = 0
    # Chunk by chunk, and from a chunk's own memory: a column of sketches should be in memory twice, not five times.
    for chunk in table[column].chunks:
        wanted = target[start : start + len(chunk)][valid[start : start + len(chunk)]]
        numbers = chunk.flatten().to_numpy(zero_copy_only=False).reshape(len(wanted), size)
        result[wanted[wanted >= 0]] = numbers[wanted >= 0]
        start += len(chunk)
    return result
