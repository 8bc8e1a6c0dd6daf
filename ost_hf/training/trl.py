"""The same for TRL's ``SFTTrainer``.

TRL prepares the dataset in its constructor, and packing destroys the identity of rows: the kept rows are
taken out before it sees them, so its own sampler and logs are right as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import datasets
from torch.utils.data import IterableDataset
from trl import SFTConfig, SFTTrainer

from ost_hf.errors import DataError
from ost_hf.training.config import SelectionArguments
from ost_hf.training.kept import filter_stream, find_kept
from ost_hf.training.resolve import resolve_selection


@dataclass
class OSTSFTConfig(SelectionArguments, SFTConfig):
    """``SFTConfig`` with the selection's settings."""


class OSTSFTTrainer(SFTTrainer):
    """``SFTTrainer`` on the kept rows of its training set.

    Args:
        *args: As in ``SFTTrainer``.
        scores, selection, proxy, anchors, strategy, scoring, encoding, duplicates: As in ``OSTTrainer``.
        **kwargs: As in ``SFTTrainer``; the training set is a ``datasets.Dataset``, or an iterable one whose
            rows have an ``example_id``.
    """

    def __init__(
        self,
        model: Any,
        args: Any = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *more: Any,
        scores: Any = None,
        selection: Any = None,
        proxy: Any = None,
        anchors: Any = None,
        strategy: Any = None,
        scoring: Any = None,
        encoding: Any = None,
        duplicates: Any = None,
        **kwargs: Any,
    ):
        args = OSTSFTConfig() if args is None else args
        selects = train_dataset is not None and any(source is not None for source in (scores, selection, proxy))
        # Before hours of scoring.
        if selects and not isinstance(train_dataset, (datasets.Dataset, IterableDataset)):
            raise DataError(f"OSTSFTTrainer selects from a datasets.Dataset, not from {type(train_dataset).__name__}")
        table = resolve_selection(
            args, train_dataset, eval_dataset, kwargs.get("processing_class"),
            scores=scores, selection=selection, proxy=proxy, anchors=anchors, strategy=strategy, scoring=scoring,
            encoding=encoding, duplicates=duplicates,
        )  # fmt: skip
        if table is not None:
            if isinstance(train_dataset, datasets.Dataset):
                train_dataset = train_dataset.select(sorted(find_kept(train_dataset, table).indices))
            else:
                train_dataset = filter_stream(train_dataset, table)
        super().__init__(model, args, data_collator, train_dataset, eval_dataset, *more, **kwargs)
