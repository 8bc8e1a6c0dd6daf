"""Means over seeds with intervals, differences paired by seed, and ratios of differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ost_hf.errors import ConfigError


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % confidence interval; without ends where one repetition says nothing of the spread."""

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


def recovered(
    method: dict[int, float], below: dict[int, float], above: dict[int, float], resamples: int = 10_000
) -> Interval | None:
    """The share of the way from ``below`` to ``above`` that ``method`` goes.

    The ratio of mean differences over the seeds that all three have, with the percentile interval of a bootstrap over
    seeds (seeded, so that a table made again is the same table).

    Returns:
        ``None`` without common seeds, or where ``above`` is not above ``below``.
    """
    seeds = sorted(set(method) & set(below) & set(above))
    gains = np.asarray([method[seed] - below[seed] for seed in seeds])
    gaps = np.asarray([above[seed] - below[seed] for seed in seeds])
    if not seeds or gaps.mean() <= 0:
        return None
    share = float(gains.mean() / gaps.mean())
    if len(seeds) == 1:
        return Interval(share, None, None, 1)
    draws = np.random.default_rng(0).integers(len(seeds), size=(resamples, len(seeds)))
    drawn_gaps = gaps[draws].mean(axis=1)
    usable = drawn_gaps > 0
    low, high = np.quantile(gains[draws].mean(axis=1)[usable] / drawn_gaps[usable], [0.025, 0.975])
    return Interval(share, float(low), float(high), len(seeds))


def _t(degrees: int) -> float:
    try:
        from scipy.stats import t
    except ImportError as error:
        raise ConfigError("intervals need SciPy: pip install 'ost-hf[report]'") from error
    return float(t.ppf(0.975, degrees))
