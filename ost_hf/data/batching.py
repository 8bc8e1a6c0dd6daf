"""Encoded rows to batches: rows of like length together, as many as a number of tokens allows."""

from __future__ import annotations

from collections.abc import Iterable

from ost_hf.data.encoding.encoded import Encoded


def cut_batches(rows: Iterable[Encoded], max_tokens: int, max_rows: int | None = None) -> list[list[Encoded]]:
    """Cuts rows into batches.

    Args:
        rows: Rows that could be encoded.
        max_tokens: Of a batch with its padding; a longer row makes a batch of its own.
        max_rows: Of a batch.

    Returns:
        Batches in the order of length (then of the rows' place in the pool): little padding, and the same
        batches whatever order the rows came in.
    """
    batches: list[list[Encoded]] = []
    for row in sorted(rows, key=lambda row: (row.length, row.row)):
        size = len(batches[-1]) + 1 if batches else 0
        # The row at hand is the longest so far, so the batch would be padded to it.
        if not batches or size * row.length > max_tokens or (max_rows is not None and size > max_rows):
            batches.append([])
        batches[-1].append(row)
    return batches
