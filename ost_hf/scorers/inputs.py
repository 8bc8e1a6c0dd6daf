"""What scorers that ask a model share: candidates to a batch on the device, and anchors batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ost_hf.data.batching import cut_batches
from ost_hf.data.collator import Collator
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import Encoded, Features
from ost_hf.data.rows import Rows
from ost_hf.errors import DataError, ModelError
from ost_hf.functional.loss import per_sample_loss
from ost_hf.parallel import free_memory, on_accelerator, state

logger = logging.getLogger(__name__)


def default_batch_tokens() -> int:
    """Padded tokens scored at a time: what keeps a GPU busy, or a CPU's activations in its cache."""
    return 16384 if on_accelerator() else 1024


class BatchLimits(Protocol):
    """What of the ``scoring`` section every scorer that asks a model reads."""

    @property
    def batch_size(self) -> int | None:
        """Rows at a time at most."""
        ...

    @property
    def batch_tokens(self) -> int | None:
        """Padded tokens at a time; ``None`` for what suits the machine."""
        ...


def forward_batch_tokens(config: BatchLimits) -> int:
    """Padded tokens at a time for a scorer without a backward pass: nothing is kept for one."""
    return config.batch_tokens or 2 * default_batch_tokens()


class ToDevice:
    """Rows to one padded batch on this process's device.

    Args:
        processing_class: The model's tokenizer or processor.
    """

    def __init__(self, processing_class: Any):
        self._collate = Collator.of(processing_class)

    def __call__(self, rows: Sequence[Encoded]) -> Features:
        """The batch of rows that could be encoded."""
        return self.features([row.features for row in rows if row.features is not None])

    def features(self, rows: list[Features]) -> Features:
        """The batch of features made of rows."""
        return {key: value.to(state().device, non_blocking=True) for key, value in self._collate(rows).items()}


def encode_anchors(anchors: EncodedDataset) -> list[Encoded]:
    """Every anchor, encoded.

    Raises:
        DataError: If one cannot be: the anchor set is small, clean and chosen by hand.
    """
    encoded = [anchors.encode(row) for row in range(len(anchors))]
    unusable = [row for row in encoded if row.features is None]
    if unusable:
        first = unusable[0]
        raise DataError(
            f"{len(unusable)} of {len(encoded)} anchors cannot be used, such as row {first.row} "
            f"({first.status}: {first.detail}); every score depends on the anchors, so mend or remove them"
        )
    return encoded


def check_group_by(anchors: Rows, column: str | None) -> None:
    """Raises ``DataError`` if the anchors lack the column of ``scoring.group_by``."""
    names = anchors.dataset.column_names
    if column is not None and column not in names:
        raise DataError(f"scoring.group_by: the anchors have no column {column!r}; there are: {', '.join(names)}")


def anchor_groups(anchors: EncodedDataset, column: str | None) -> tuple[list[str], list[int]]:
    """Group names in order, and the number of each anchor's group; nothing without a column.

    Raises:
        DataError: If there is no such column.
    """
    if column is None:
        return [], []
    check_group_by(anchors.rows, column)
    values = [str(value) for value in anchors.rows.dataset[column]]
    names = sorted(set(values))
    return names, [names.index(value) for value in values]


def mean_anchor_loss(model: Any, anchors: EncodedDataset) -> float:
    """The mean over the anchors of a model's loss, in nats per supervised token.

    Args:
        model: The model in evaluation mode, on this process's device.
        anchors: Encoded for that model.

    Raises:
        DataError: If an anchor cannot be encoded.
        ModelError: If a single anchor does not fit into the device's memory.
    """
    to_device = ToDevice(anchors.encoder.processing_class)

    def losses(batch: list[Encoded]) -> Tensor:
        with torch.inference_mode():
            return per_sample_loss(model, to_device(batch))

    of_batches = over_anchors(losses, encode_anchors(anchors), default_batch_tokens())
    return sum(float(losses_B.sum()) for _, losses_B in of_batches) / len(anchors)


def over_anchors(
    compute: Callable[[list[Encoded]], Tensor], anchors: Sequence[Encoded], batch_tokens: int
) -> Iterator[tuple[list[Encoded], Tensor]]:
    """Computes something of every anchor, in smaller batches where the device's memory is short.

    Args:
        compute: Gives one row of a tensor for each anchor of a batch, and keeps nothing of it.
        anchors: Encoded anchors.
        batch_tokens: Padded tokens at a time.

    Yields:
        A batch of anchors and what was computed of it.

    Raises:
        ModelError: If a single anchor does not fit.
    """
    remaining = list(anchors)
    while remaining:
        batch = cut_batches(remaining, batch_tokens)[0]
        try:
            computed = compute(batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise ModelError(
                    f"the device's memory is too small for one anchor of {batch[0].length} tokens: use a smaller "
                    "proxy, or shorter anchors"
                ) from error
            free_memory()
            batch_tokens = len(batch) // 2 * batch[-1].length
            logger.warning("out of memory with the anchors; going on with %d tokens at once", batch_tokens)
            continue
        done = {row.row for row in batch}
        remaining = [row for row in remaining if row.row not in done]
        yield batch, computed
