"""The same for TRL's ``SFTTrainer``.

TRL prepares the dataset in its constructor, and packing destroys the identity of rows: the kept rows are
taken out before it sees them, so its own sampler and logs are right as they are.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import datasets
from torch.utils.data import IterableDataset
from trl import SFTConfig, SFTTrainer

from ost_hf.errors import DataError
from ost_hf.parallel import is_main
from ost_hf.training.config import SelectionArguments, refuse_unknown
from ost_hf.training.kept import filter_stream, find_kept
from ost_hf.training.resolve import resolve_selection

logger = logging.getLogger(__name__)


@dataclass
class OSTSFTConfig(SelectionArguments, SFTConfig):
    """``SFTConfig`` with the selection's settings."""


class OSTSFTTrainer(SFTTrainer):
    """``SFTTrainer`` on the kept rows of its training set.

    Args:
        *args: As in ``SFTTrainer``.
        scores, selection, proxy, anchors, strategy, scoring, duplicates: As in ``OSTTrainer``.
        encoding: How rows become tokens for the proxy. For the target ``SFTConfig`` says that: its ``max_length``, and
            whether all turns of ``messages`` are learnt or, by ``assistant_only_loss``, answers alone.
        **kwargs: As in ``SFTTrainer``; the training set is a ``datasets.Dataset``, or an iterable one whose
            rows have an ``example_id``.

    Raises:
        ConfigError: As ``OSTTrainer`` does.
        DataError: For rows that ``SFTTrainer`` cannot take, or a selection that does not fit them.
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
        if train_dataset is not None and any(source is not None for source in (scores, selection, proxy)):
            # Before hours of scoring.
            refuse_unknown(SFTTrainer, kwargs)
            _check_rows(args, train_dataset, kwargs.get("formatting_func"))
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


def _check_rows(args: Any, train_dataset: Any, formatting_func: Any) -> None:
    """Raises ``DataError`` for rows that ``SFTTrainer`` would refuse after the pool was scored."""
    if not isinstance(train_dataset, (datasets.Dataset, IterableDataset)):
        raise DataError(f"OSTSFTTrainer selects from a datasets.Dataset, not from {type(train_dataset).__name__}")
    names: list[str] = getattr(train_dataset, "column_names", None) or []  # of a stream they may not be known
    taken = ({"messages"}, {"prompt", "completion"}, {args.dataset_text_field}, {"input_ids"})
    if names and formatting_func is None and not any(columns <= set(names) for columns in taken):
        raise DataError(
            f"SFTTrainer takes rows of messages, prompt and completion, {args.dataset_text_field} or input_ids, and "
            f"these have {', '.join(names)}: rename question to prompt and answer to completion, or give "
            "formatting_func"
        )
    if "messages" in names and not args.assistant_only_loss and is_main():
        logger.warning(
            "rows are scored by their answers, but SFTTrainer will learn all turns of messages: set "
            "assistant_only_loss=True, or give prompt and completion"
        )
