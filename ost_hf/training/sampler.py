"""``OSTSampler``: the kept rows, shuffled, in the order of the selection, or weighted by utility."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

from ost_hf.errors import ConfigError, DataError, require_choice

SAMPLING_ORDERS = ("shuffled", "ranked", "weighted")


class OSTSampler(Sampler[int]):
    """Yields row numbers of the dataset, kept rows only.

    The order is a function of seed and epoch alone, so every process of a run sees the same one and
    Accelerate can share it out batch by batch.

    Args:
        indices: The kept rows, in the rank order of the selection.
        utilities: Their utilities; needed for ``weighted``.
        order: ``shuffled`` (a new permutation in each epoch), ``ranked`` (as the indices are given, the same
            in every epoch), or ``weighted`` (drawn with replacement with probability proportional to
            ``exp(z)``, z the utility standardised over the kept rows, whatever strategy ranked them).
        seed: With the epoch it seeds the generator.

    Raises:
        DataError: If there are no rows, or not one utility for each.
        ConfigError: If ``order`` is unknown or needs utilities that are not given.
    """

    def __init__(
        self,
        indices: Sequence[int],
        utilities: Sequence[float] | None = None,
        order: str = "shuffled",
        seed: int = 0,
    ):
        require_choice("order", order, SAMPLING_ORDERS)
        if len(indices) == 0:
            raise DataError("OSTSampler was given no rows")
        if utilities is not None and len(utilities) != len(indices):
            raise DataError(f"OSTSampler was given {len(indices)} rows but {len(utilities)} utilities")
        if order == "weighted" and utilities is None:
            raise ConfigError(
                f"order {order!r} needs utilities, and none were given: a selection table has them in a column "
                "'utility'; without one the order can be 'shuffled' or 'ranked'"
            )
        self.order = order
        self.seed = seed
        self.epoch = 0
        self._indices = torch.as_tensor(indices, dtype=torch.int64)
        self._utilities = None if utilities is None else torch.as_tensor(utilities, dtype=torch.float64)
        self._position = self._resume_at = 0

    def __len__(self) -> int:
        """Rows in one epoch: as many as are kept."""
        return len(self._indices)

    def __iter__(self) -> Iterator[int]:
        # Only the first pass after load_state_dict begins in the middle.
        self._position, self._resume_at = self._resume_at, 0
        for index in self._order()[self._position :].tolist():
            self._position += 1
            yield index

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order comes next; a new one starts from its first row."""
        if epoch != self.epoch:
            self._position = self._resume_at = 0
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Epoch and number of rows given out in it."""
        return {"seed": self.seed, "epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where :meth:`state_dict` was taken."""
        self.seed, self.epoch = state["seed"], state["epoch"]
        self._position = self._resume_at = state["position"]

    def _order(self) -> torch.Tensor:
        if self.order == "ranked":
            return self._indices
        generator = torch.Generator()
        # Seeds in the tens of thousands apart: no epoch of one seed meets an epoch of the next one.
        generator.manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.order == "shuffled":
            return self._indices[torch.randperm(len(self._indices), generator=generator)]
        assert self._utilities is not None
        spread = self._utilities.std(correction=0).clamp_min(torch.finfo(torch.float64).tiny)
        weights = torch.softmax((self._utilities - self._utilities.mean()) / spread, 0)
        # Sampled through the cumulative sum: torch.multinomial stops at 2^24 rows.
        draws = torch.rand(len(weights), generator=generator, dtype=torch.float64)
        places = torch.searchsorted(weights.cumsum(0), draws).clamp_max(len(weights) - 1)
        return self._indices[places]
