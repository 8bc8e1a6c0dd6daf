"""Seeded sketches: a long gradient in a few numbers that keep its inner products.

A sketch S of size k sends each coordinate to one of k places with a random sign and adds up (a balanced
CountSketch, Charikar et al. 2002). Then E <S g, S h> = <g, h>, with a variance of about
(|g|^2 |h|^2 + <g, h>^2) / k. Parameters are sketched one by one and added: a whole gradient never exists.

Letters: B samples, k size.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


class Sketch:
    """A random linear map from all adapter parameters to ``size`` numbers.

    The map depends on seed, parameter name and shape alone: sketches made on different days and devices,
    in any order, can be compared.

    Args:
        size: k.
        seed: Another seed gives an independent sketch.
    """

    def __init__(self, size: int, seed: int = 0):
        if size < 1:
            raise ValueError(f"a sketch needs a size of at least 1, got {size}")
        self.size, self.seed = size, seed
        self._maps: dict[str, tuple[Tensor, Tensor]] = {}

    def part(self, name: str, gradient: Tensor) -> Tensor:
        """What one parameter adds to the sketches of B samples.

        Args:
            name: The parameter's name.
            gradient: ``[B, *parameter shape]``.

        Returns:
            ``[B, k]``; the sum over all parameters is the sketch.
        """
        flat = gradient.flatten(1)
        order, signs = self._map(name, flat)
        mixed = flat.index_select(1, order) * signs
        short = -mixed.shape[1] % self.size
        return (
            torch.nn.functional.pad(mixed, (0, short))
            .view(len(flat), -1, self.size)
            .sum(1)
            .roll(self._offset(name), dims=1)
        )

    def _map(self, name: str, flat: Tensor) -> tuple[Tensor, Tensor]:
        if name not in self._maps:
            # Drawn on the CPU, whose generator gives the same numbers everywhere.
            generator = torch.Generator().manual_seed(self._hash(name))
            order = torch.randperm(flat.shape[1], generator=generator)
            signs = torch.randint(0, 2, (flat.shape[1],), generator=generator) * 2 - 1
            self._maps[name] = order.to(flat.device), signs.to(flat)
        return self._maps[name]

    def _offset(self, name: str) -> int:
        """Where a parameter begins: those shorter than the sketch must not all pile up in its first places."""
        return self._hash(name) % self.size

    def _hash(self, name: str) -> int:
        digest = hashlib.blake2b(f"{self.seed}:{name}".encode(), digest_size=7).digest()
        return int.from_bytes(digest, "big")
