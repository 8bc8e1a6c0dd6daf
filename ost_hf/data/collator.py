"""Encoded rows to one padded batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad

from ost_hf.data.encoding.encoded import IGNORE_INDEX, Features
from ost_hf.errors import DataError


@dataclass
class Collator:
    """Pads per-token rows and joins image tensors along their first dimension.

    Args:
        pad_token_id: Fills ``input_ids``.
        padding_side: ``right`` for training and scoring, ``left`` for generation.
    """

    pad_token_id: int
    padding_side: str = "right"

    @classmethod
    def of(cls, processing_class: Any, padding_side: str = "right") -> Collator:
        """The collator for a tokenizer or processor; without a pad token, the end-of-sequence token pads."""
        tokenizer = getattr(processing_class, "tokenizer", processing_class)
        pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        return cls(pad_token_id if pad_token_id is not None else 0, padding_side)

    def __call__(self, rows: list[Features]) -> Features:
        """Batches rows.

        Args:
            rows: Features of B rows; per-token ones of shape ``[T_i]``.

        Returns:
            Per-token tensors ``[B, max T_i]``; image tensors concatenated in row order.

        Raises:
            DataError: If image tensors of different rows do not fit together.
        """
        width = max(len(row["input_ids"]) for row in rows)
        batch: Features = {}
        for key in dict.fromkeys(key for row in rows for key in row):
            present = [row for row in rows if key in row]
            if all(row[key].shape == row["input_ids"].shape for row in present):
                # A text row among image rows has no image marks; zero is what the processor would give it.
                values = [row.get(key, torch.zeros_like(row["input_ids"])) for row in rows]
                batch[key] = torch.stack([self._pad(value, width, self._fill(key)) for value in values])
                continue
            try:
                batch[key] = torch.cat([row[key] for row in present])
            except RuntimeError as error:
                raise DataError(
                    f"the rows' {key} do not fit into one batch ({error}); use a batch size of 1"
                ) from error
        return batch

    def _fill(self, key: str) -> int:
        return {"input_ids": self.pad_token_id, "labels": IGNORE_INDEX}.get(key, 0)

    def _pad(self, value: torch.Tensor, width: int, fill: int) -> torch.Tensor:
        missing = width - len(value)
        return pad(value, (missing, 0) if self.padding_side == "left" else (0, missing), value=fill)
