"""Sure or not sure: two questions about a row, each answered with a p-value and a false-discovery rate.

* Does it **hurt the anchors**? Its utility for each of V anchors is a sample of its utility for the task: the
  one-sided p-value of "its mean is not below zero" from the bootstrap over anchors. A clean row of an easy skill
  may truly hurt.
* Is it **corrupted**? The conformal p-value ``corrupted_p`` of the second look.

Benjamini and Hochberg's procedure (1995) then holds the expected share of false ones among those called so at
the asked rate, over the whole pool.

Letters: N candidates, V anchors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Candidates whose bootstrap exists at a time.
_BLOCK = 4096
RESAMPLES = 2000


def least_hurts_p(anchors: int) -> float:
    """The smallest p-value that :func:`hurts_p` gives with so many anchors, about.

    In this share of its draws the bootstrap takes the anchor of least utility every time.
    """
    return max(float(anchors) ** -anchors, 1 / (1 + RESAMPLES))


def hurts_p(utility_NV: Array, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """P-values of "stepping on this candidate does not hurt the task that the anchors stand for".

    The bootstrap of the studentised mean (Hall 1988): anchors are drawn with replacement, all candidates with the
    same draws, and t* = (mean* - mean) / se* is compared with t = mean / se.

    Args:
        utility_NV: Each candidate's utility for each anchor.
        resamples: Draws of V anchors.
        seed: Of the draws.

    Returns:
        ``[N]``: ``(1 + #{t* <= t}) / (1 + resamples)``, small where the mean utility is surely below zero.

    Raises:
        ValueError: For fewer than two anchors.
    """
    anchors = utility_NV.shape[1]
    if anchors < 2:
        raise ValueError(f"a standard error needs at least two anchors, got {anchors}")
    draws = np.random.default_rng(seed).integers(0, anchors, size=(resamples, anchors))
    weight_RV = np.stack([np.bincount(draw, minlength=anchors) for draw in draws]) / anchors
    result = np.empty(len(utility_NV))
    for start in range(0, len(utility_NV), _BLOCK):
        block = utility_NV[start : start + _BLOCK].astype(np.float64)
        mean = block.mean(1, keepdims=True)
        centred = block - mean
        error = np.sqrt((centred**2).mean(1, keepdims=True) / (anchors - 1))
        mean_star = centred @ weight_RV.T
        # Rounding can leave a variance of a constant resample just below zero.
        variance_star = np.maximum((centred**2) @ weight_RV.T - mean_star**2, 0)
        error_star = np.sqrt(variance_star / (anchors - 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            t = mean / error
            t_star = mean_star / error_star
        # Without spread there is no doubt: the sign decides.
        t = np.where(error > 0, t, np.where(mean < 0, -np.inf, np.inf))
        t_star = np.where(np.isnan(t_star), 0.0, t_star)
        result[start : start + _BLOCK] = (1 + (t_star <= t).sum(1)) / (1 + resamples)
    return result


def benjamini_hochberg(p: Array, rate: float) -> NDArray[np.bool_]:
    """Which hypotheses are rejected at a false-discovery rate.

    Args:
        p: ``[N]`` p-values, independent or positively dependent (as conformal ones that share calibration rows are).
        rate: The expected share of false rejections that is allowed, in (0, 1).

    Returns:
        ``[N]``; with p sorted, the largest k with ``p_(k) <= k rate / N`` are rejected.
    """
    order = np.argsort(p, kind="stable")
    # A little more, for rounding: conformal p-values are whole multiples of the smallest, and may be equal to a bound.
    below = p[order] * len(p) <= rate * np.arange(1, len(p) + 1) * (1 + 1e-12)
    rejected = np.zeros(len(p), dtype=bool)
    if below.any():
        rejected[order[: np.flatnonzero(below)[-1] + 1]] = True
    return rejected


def verdicts(
    rate: float, hurts: Array | None = None, helps: Array | None = None, corrupted: Array | None = None
) -> NDArray[np.str_]:
    """``toxic``, ``useful`` or ``uncertain`` for each row.

    Args:
        rate: The false-discovery rate of each question.
        hurts: P-values of "does not hurt the anchors"; a rejection makes a row toxic.
        helps: P-values of "does not help the anchors"; a rejection makes a row useful, unless it is toxic.
        corrupted: P-values of "as clean as an anchor"; a rejection makes a row toxic.

    Returns:
        ``[N]`` of strings.

    Raises:
        ValueError: Without any p-values.
    """
    given = [p for p in (hurts, helps, corrupted) if p is not None]
    if not given:
        raise ValueError("no p-values were given")
    result = np.full(len(given[0]), "uncertain", dtype="<U9")
    if helps is not None:
        result[benjamini_hochberg(helps, rate)] = "useful"
    for p in (hurts, corrupted):
        if p is not None:
            result[benjamini_hochberg(p, rate)] = "toxic"
    return result
