"""Encoded rows kept in memory: a pool is read by scoring, by a second look, and once an epoch by training."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ost_hf.data.encoding.encoded import Encoded

# What Python itself takes for a row: objects, a dictionary and the heads of its tensors.
_OVERHEAD_BYTES = 2048


class EncodingCache:
    """The first rows that fit into ``limit_bytes``; what is full stays as it is and throws nothing out.

    Rows are read in random order, over and over: the newest are as likely to be needed as the oldest.
    """

    def __init__(self, limit_bytes: int):
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._rows: dict[int, Encoded] = {}

    def get(self, row: int) -> Encoded | None:
        """The row, if it is here."""
        return self._rows.get(row)

    def put(self, row: int, encoded: Encoded) -> None:
        """Keeps the row, if there is room."""
        size = _OVERHEAD_BYTES + sum(tensor.nbytes for tensor in (encoded.features or {}).values())
        if self.bytes + size <= self.limit_bytes and row not in self._rows:
            self._rows[row] = encoded
            self.bytes += size


@lru_cache(maxsize=3)
def shared_cache(key: tuple[str, ...], limit_bytes: int) -> EncodingCache:
    """The process's cache for ``key``: rows, processor and settings that an encoding is a function of.

    Stages that run one after another in one process find what the stage before has encoded; caches of the last three
    keys are kept (a pool for the proxy, the same for the target, the anchors).
    """
    return EncodingCache(limit_bytes)
