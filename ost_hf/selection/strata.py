"""Strata: parts of the pool that all get their share of what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ost_hf.shares import largest_remainders

Places = NDArray[np.int64]


def strata_of(values: Sequence[Any], groups: int | None = None) -> Places:
    """The number of each value's stratum.

    Args:
        values: N values: one stratum for each distinct one (compared as text), in sorted order.
        groups: In place of that, so many groups of about equal size along the order of numbers; equal numbers are
            never parted.
    """
    if groups is None:
        return np.unique([str(value) for value in values], return_inverse=True)[1].astype(np.int64)
    numbers = np.asarray(values, dtype=np.float64)
    edges = np.quantile(numbers, np.arange(1, groups) / groups, method="inverted_cdf")
    return np.searchsorted(np.unique(edges), numbers, side="left").astype(np.int64)


def rooms(stratum: Places, quota: int, balance: str) -> Places:
    """How many rows each stratum may give; together the quota.

    Args:
        stratum: ``[N]``, from 0 on.
        quota: At most N.
        balance: ``proportional`` to the strata's sizes (largest remainders get the rest), or ``equal`` parts, where
            what a small stratum cannot give is shared by the others.

    Raises:
        ValueError: For another name.
    """
    sizes = np.bincount(stratum)
    if balance == "proportional":
        return largest_remainders(sizes, quota)
    if balance != "equal":
        raise ValueError(f"balance must be proportional or equal, got {balance!r}")
    room = np.zeros(len(sizes), dtype=np.int64)
    while (left := quota - int(room.sum())) > 0:
        open_strata = np.flatnonzero(room < sizes)
        part, rest = divmod(left, len(open_strata))
        wanted = np.full(len(open_strata), part)
        wanted[:rest] += 1
        room[open_strata] = np.minimum(sizes[open_strata], room[open_strata] + wanted)
    return room
