"""Set-wise selection: rows are chosen for what they add to those chosen already.

One step of size eta along the mean m of the chosen rows' gradients moves the anchors' loss, to second order, by

    U(S) = eta <a, m> - eta^2 / 2  m^T H m

with a the anchors' mean gradient and H their curvature: the Gauss-Newton (Fisher) matrix of the anchors' gradients
plus lambda I. All of it is read off sketches of preconditioned gradients, each of length one: nobody is paid for a
large gradient. The best step for a set is eta* = <a, m> / (m^T H m); at it, one more row along m would gain nothing,
and one against it lose nothing. So the whole set of K rows is given rho eta*, a share of the best step, and the n
rows chosen so far n / K of that. The gain of one more row x, given the chosen ones, is then

    gain(x | S) = <a, x> - rho (n / K) eta*  x^T H m

What the set pushes along already stops paying. Gains have both signs and are no upper bounds for later ones, so the
greedy choice is not lazy: it works in blocks, all gains are computed anew for each. When gains turn negative before
the quota is full, it goes on, and says from where.

Letters: N candidates, V anchors, k size of a sketch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Rows whose gains are computed at a time: 64 MB of sketches of 512 numbers.
_CHUNK = 2**15


@dataclass(frozen=True)
class Greedy:
    """The chosen rows in their order, and the gain of each when it was chosen.

    ``positive`` of them came before the first whose gain was not positive.
    """

    order: NDArray[np.int64]
    gain: Array
    positive: int


def unit(sketch_Nk: Array) -> Array:
    """Each row over its length; a row of zeros stays one."""
    length = np.linalg.norm(sketch_Nk, axis=1, keepdims=True)
    return (sketch_Nk / np.maximum(length, np.finfo(np.float32).tiny)).astype(np.float32)


def greedy(
    sketch_Nk: Array,
    anchor_Vk: Array,
    quota: int,
    blocks: int = 200,
    ridge: float = 1.0,
    step_share: float = 0.8,
    stratum_N: NDArray[np.int64] | None = None,
    room: NDArray[np.int64] | None = None,
) -> Greedy:
    """Chooses rows by their gain given the chosen ones.

    Args:
        sketch_Nk: The candidates' sketches; an array or a memory map, read in pieces.
        anchor_Vk: The anchors' sketches.
        quota: How many rows to choose; fewer if there are fewer, or if the strata have no room.
        blocks: In how many blocks; within one the gains are not computed anew.
        ridge: lambda over the mean eigenvalue of the anchors' matrix.
        step_share: rho, in (0, 1): close to 1, what the anchors ask for is met evenly; below it, rows that point
            away from the anchors stay below zero.
        stratum_N: The stratum of each candidate, from 0 on.
        room: How many rows each stratum may give.

    Raises:
        ValueError: For sketches of different sizes or strata without room for each.
    """
    count, size = sketch_Nk.shape
    _check_shapes(sketch_Nk, anchor_Vk, stratum_N, room)
    anchor_Vk = unit(anchor_Vk)
    # Lengths once, gains many times: dividing a gain costs nothing beside dividing a sketch.
    length_N, wanted = _lengths(sketch_Nk), min(quota, count)
    if stratum_N is None or room is None:
        stratum_N, room = np.zeros(count, dtype=np.int64), np.array([count])
    # Left are rows that are neither taken nor of a full stratum.
    left, room = room[stratum_N] > 0, room.copy()
    total, block = np.zeros(size, dtype=np.float64), max(1, -(-wanted // blocks))
    order, gains = list[int](), list[float]()
    while len(order) < wanted:
        # Unit vectors: the trace of the anchors' matrix is one.
        direction = _direction(anchor_Vk, total / max(1, len(order)), ridge / size, step_share * len(order) / wanted)
        gain_N = _gains(sketch_Nk, length_N, direction)
        chosen = _best(gain_N, left, min(block, wanted - len(order)), stratum_N, room)
        if not chosen:
            break
        total += unit(np.asarray(sketch_Nk[chosen])).sum(0, dtype=np.float64)
        order += chosen
        gains += gain_N[chosen].tolist()
    gain = np.asarray(gains, dtype=np.float32)
    negative = np.flatnonzero(gain <= 0)
    return Greedy(np.asarray(order, dtype=np.int64), gain, int(negative[0]) if len(negative) else len(order))


def _check_shapes(
    sketch_Nk: Array, anchor_Vk: Array, stratum_N: NDArray[np.int64] | None, room: NDArray[np.int64] | None
) -> None:
    if anchor_Vk.shape[1] != sketch_Nk.shape[1]:
        raise ValueError(f"candidates have sketches of {sketch_Nk.shape[1]} numbers, anchors of {anchor_Vk.shape[1]}")
    if (stratum_N is None) != (room is None):
        raise ValueError("strata and their room go together")


def _gains(sketch_Nk: Array, length_N: Array, direction: Array) -> Array:
    """The gain of each candidate, as a unit vector, along a direction: ``[N]``."""
    gain_N = np.empty(len(length_N), dtype=np.float32)
    for start, stop in _pieces(len(length_N)):
        gain_N[start:stop] = (np.asarray(sketch_Nk[start:stop]) @ direction) / length_N[start:stop]
    return gain_N


def _direction(anchor_Vk: Array, mean: NDArray[np.float64], damping: float, share: float) -> Array:
    """``a - share eta* H m``: what a gain is the inner product with; a is the anchors' mean."""
    target = anchor_Vk.mean(0)
    curved = anchor_Vk.T @ (anchor_Vk @ mean) / len(anchor_Vk) + damping * mean
    curvature = float(mean @ curved)
    if curvature <= 0:
        return target.astype(np.float32)
    # A set that points away from the anchors gets no step at all.
    step = max(0.0, float(target @ mean)) / curvature
    return (target - share * step * curved).astype(np.float32)


def _best(
    gain_N: Array, left: NDArray[np.bool_], size: int, stratum_N: NDArray[np.int64], room: NDArray[np.int64]
) -> list[int]:
    """The rows of highest gain that strata have room for, in order; equal gains by place.

    ``left`` and ``room`` are used up.
    """
    chosen: list[int] = []
    reach = size
    while len(chosen) < size and left.any():
        first = _first(gain_N, np.flatnonzero(left), reach)
        stratum = stratum_N[first]
        taken = first[_earlier_equals(stratum) < room[stratum]][: size - len(chosen)]
        room -= np.bincount(stratum_N[taken], minlength=len(room))
        left[taken] = False
        if (room[stratum] == 0).any():
            left &= room[stratum_N] > 0
        chosen += taken.tolist()
        # Where strata fill up again and again, the pool is not gone through for every row.
        reach *= 2
    return chosen


def _first(gain_N: Array, places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The first ``size`` of ascending places, or all, by gain, highest first; equal gains by place."""
    cost = -gain_N[places]
    if size < len(places):
        # A partition alone would take any of the rows that tie with its last one. What is no number comes last.
        near = ~(cost > np.partition(cost, size - 1)[size - 1])
        places, cost = places[near], cost[near]
    return places[np.argsort(cost, kind="stable")[:size]]


def _earlier_equals(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each value, how many equal ones stand before it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    result = np.empty(len(values), dtype=np.int64)
    result[order] = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    return result


def _lengths(sketch_Nk: Array) -> Array:
    length_N = np.empty(len(sketch_Nk), dtype=np.float32)
    for start, stop in _pieces(len(sketch_Nk)):
        length_N[start:stop] = np.linalg.norm(sketch_Nk[start:stop], axis=1)
    return np.maximum(length_N, np.finfo(np.float32).tiny)


def _pieces(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, _CHUNK):
        yield start, min(count, start + _CHUNK)
