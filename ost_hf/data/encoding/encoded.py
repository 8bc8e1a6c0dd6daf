"""One encoded row."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ost_hf.errors import DataError
from ost_hf.tables.statuses import OK

IGNORE_INDEX = -100

Features = dict[str, torch.Tensor]


@dataclass
class Encoded:
    """One encoded row, or the reason why there is none.

    ``features`` holds 1-D ``input_ids``, ``attention_mask``, ``labels`` (and other per-token rows) of
    length T, and the processor's image tensors as it returned them.
    """

    example_id: str
    row: int
    status: str = OK
    detail: str = ""
    features: Features | None = None

    @property
    def tokens(self) -> int:
        """Supervised tokens: those the loss is a mean over. The first token is never predicted."""
        return 0 if self.features is None else int((self.features["labels"][1:] != IGNORE_INDEX).sum())

    @property
    def length(self) -> int:
        """Length in tokens, image tokens included."""
        return 0 if self.features is None else len(self.features["input_ids"])

    def inputs(self) -> Features:
        """``features`` in a dictionary of its own, for a collator may take fields out; ``DataError`` without any."""
        if self.features is None:
            raise DataError(
                f"row {self.row} ({self.example_id}) cannot be used: {self.status}, {self.detail}; "
                "score or check the rows first, so that it is left out"
            )
        return dict(self.features)
