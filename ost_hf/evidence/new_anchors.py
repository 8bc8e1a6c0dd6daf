"""Utilities against other anchors than a pool was scored with, from stored sketches.

Let u be a row's gradient, preconditioned and of length one, and m the mean of the anchors' such vectors. The utility
``mean_cosine`` is <u, m>. A sketch S of k numbers keeps inner products, E <S u, S n> = <u, n>, with a variance of about
|n|^2 / k. The new anchors' mean n is close to the old one's, m, against which <u, m> is known without any sketch. So

    <u, n>  ~  a <u, m> + <S u, S n - a S m>        a = <S n, S m> / |S m|^2

A control variate: the sketch is asked about the part of n alone that m does not have, which is short where anchors of
one task follow anchors of the same. For n = m the stored utility comes back, without an error.

Letters: N rows, V old anchors, W new anchors, k numbers of a sketch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Turn:
    """From old anchors to new ones: ``share`` is a, and ``rest [k]`` is S n - a S m."""

    share: float
    rest: Floats

    def utilities(self, utility_N: Floats, sketch_Nk: NDArray[np.floating]) -> Floats:
        """Utilities against the new anchors, in units of the old ones: ``[N]``.

        Args:
            utility_N: Mean cosines with the old anchors.
            sketch_Nk: Sketches of gradients of length one, of any precision.
        """
        return self.share * utility_N + sketch_Nk.astype(np.float64) @ self.rest

    @property
    def standard_error(self) -> float:
        """About how far such a utility is from the true one: |rest| / sqrt(k)."""
        return float(np.linalg.norm(self.rest) / np.sqrt(len(self.rest)))


def turn(old_Vk: NDArray[np.floating], new_Wk: NDArray[np.floating]) -> Turn:
    """How utilities against old anchors become those against new ones.

    Args:
        old_Vk: Sketches of the old anchors' gradients, each of length one before it was sketched.
        new_Wk: The new anchors', by the same map S.

    Raises:
        ValueError: If the sketches are of different sizes.
    """
    if old_Vk.shape[1] != new_Wk.shape[1]:
        raise ValueError(f"old anchors have sketches of {old_Vk.shape[1]} numbers, new ones of {new_Wk.shape[1]}")
    old_k, new_k = old_Vk.mean(0, dtype=np.float64), new_Wk.mean(0, dtype=np.float64)
    square = float(old_k @ old_k)
    share = float(new_k @ old_k) / square if square > 0 else 0.0
    return Turn(share, new_k - share * old_k)
