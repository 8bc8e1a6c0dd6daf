"""Means over seeds with intervals, differences paired by seed, and ratios of differences.

Of one repetition: how well values tell rows apart, and what is kept of copies.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ost_hf.errors import ConfigError


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % confidence interval; without ends where one repetition says nothing of the spread.

    Infinite ends: the repetitions say nothing of it either.
    """

    mean: float
    low: float | None
    high: float | None
    count: int


def mean_interval(values: Sequence[float]) -> Interval:
    """Student's t interval of the mean of independent repetitions.

    Raises:
        ValueError: Without values.
        ConfigError: If SciPy is not installed.
    """
    if not values:
        raise ValueError("there are no values to take the mean of")
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, None, None, 1)
    half = _t(len(values) - 1) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return Interval(mean, mean - half, mean + half, len(values))


def paired_difference(first: dict[int, float], second: dict[int, float]) -> Interval | None:
    """``first - second`` over the seeds that both have; ``None`` if there is none."""
    seeds = sorted(set(first) & set(second))
    return mean_interval([first[seed] - second[seed] for seed in seeds]) if seeds else None


def recovered(method: dict[int, float], below: dict[int, float], above: dict[int, float]) -> Interval | None:
    """The share of the way from ``below`` to ``above`` that ``method`` goes.

    The ratio of mean differences over the seeds that all three have, with Fieller's interval (Fieller 1954, "Some
    problems in interval estimation"): all shares ``r`` for which the mean of ``gain - r * gap`` is not significantly
    off zero. It has no finite ends where the gap itself is not significantly off zero.

    Returns:
        ``None`` without common seeds, or where ``above`` is not above ``below``.

    Raises:
        ConfigError: If SciPy is not installed.
    """
    found = _gains_and_gaps(method, below, above)
    if found is None:
        return None
    gains, gaps = found
    share = float(gains.mean() / gaps.mean())
    count = len(gains)
    if count == 1:
        return Interval(share, None, None, 1)
    # (mean gain - r mean gap)^2 <= t^2 var(gain - r gap) / n, a quadratic in r.
    (gain_gain, gain_gap), (_, gap_gap) = _t(count - 1) ** 2 / count * np.cov(gains, gaps)
    square = gaps.mean() ** 2 - gap_gap
    linear = gains.mean() * gaps.mean() - gain_gap
    if square <= 0:
        return Interval(share, -math.inf, math.inf, count)
    half = math.sqrt(max(0.0, linear**2 - square * (gains.mean() ** 2 - gain_gain)))
    return Interval(share, float((linear - half) / square), float((linear + half) / square), count)


def mean_recovered(settings: Sequence[tuple[dict[int, float], dict[int, float], dict[int, float]]]) -> Interval | None:
    """The mean over settings of what :func:`recovered` says of each, with the interval of a jackknife over seeds.

    Args:
        settings: ``(method, below, above)`` of each setting, each by seed; seeds that one lacks are left out. An
            interval may be finite though one setting's own, Fieller's, is not: ends are of the mean, to first order.

    Returns:
        ``None`` without common seeds, or if a setting has no room between ``below`` and ``above``.

    Raises:
        ConfigError: If SciPy is not installed.
    """
    seeds = sorted(set.intersection(*(set(scores) for setting in settings for scores in setting)))

    def share(chosen: list[int]) -> float | None:
        shares = []
        for setting in settings:
            found = _gains_and_gaps(*({seed: scores[seed] for seed in chosen} for scores in setting))
            if found is None:
                return None
            shares.append(float(found[0].mean() / found[1].mean()))
        return sum(shares) / len(shares)

    whole = share(seeds)
    if whole is None:
        return None
    without = [share([other for other in seeds if other != seed]) for seed in seeds] if len(seeds) > 1 else []
    known = [value for value in without if value is not None]
    if not without:
        return Interval(whole, None, None, len(seeds))
    if len(known) < len(without):
        return Interval(whole, -math.inf, math.inf, len(seeds))  # one seed makes all the room there is
    count = len(known)
    half = _t(count - 1) * math.sqrt((count - 1) * float(np.var(known)))
    return Interval(whole, whole - half, whole + half, count)


def area_under_curve(values: np.ndarray, positive: np.ndarray) -> float | None:
    """The chance that a positive row's value is above another's, ties counted half; ``None`` without both kinds.

    Args:
        values: ``[N]``; rows without a number are left out.
        positive: ``[N]``, booleans.
    """
    known = ~np.isnan(values)
    above, below = np.sort(values[known & positive]), values[known & ~positive]
    if not len(above) or not len(below):
        return None
    losses = np.searchsorted(above, below, "left") + np.searchsorted(above, below, "right")
    return float(1 - losses.mean() / (2 * len(above)))


def extra_copies_kept(groups: Sequence[Any], kept: Sequence[int]) -> float | None:
    """Of the rows beyond the first of each group of copies, the share that is kept; ``None`` if there are none.

    Args:
        groups: The group of each row of the pool; ``None`` for a row that stands there once.
        kept: The rows that are kept. Which row of a group is the first does not matter.
    """
    of_pool = Counter(group for group in groups if group is not None)
    of_kept = Counter(groups[row] for row in kept if groups[row] is not None)
    extra = sum(number - 1 for number in of_pool.values())
    return sum(number - 1 for number in of_kept.values()) / extra if extra else None


def _gains_and_gaps(
    method: dict[int, float], below: dict[int, float], above: dict[int, float]
) -> tuple[np.ndarray, np.ndarray] | None:
    """``method - below`` and ``above - below`` by seed; ``None`` without seeds or without room."""
    seeds = sorted(set(method) & set(below) & set(above))
    gains = np.asarray([method[seed] - below[seed] for seed in seeds])
    gaps = np.asarray([above[seed] - below[seed] for seed in seeds])
    return (gains, gaps) if seeds and gaps.mean() > 0 else None


def _t(degrees: int) -> float:
    try:
        from scipy.stats import t
    except ImportError as error:
        raise ConfigError("intervals need SciPy: pip install 'ost-hf[report]'") from error
    return float(t.ppf(0.975, degrees))
