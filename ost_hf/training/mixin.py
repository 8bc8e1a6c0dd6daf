"""What a ``Trainer`` needs to choose rows and train on them; mixed in front of one, it is idle without a plan."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import DataLoader

from ost_hf.selection.kept import Kept, Selection, check_weights
from ost_hf.tables.score_table import ScoreTable
from ost_hf.training.config import sampling_order
from ost_hf.training.plan import SelectionPlan
from ost_hf.training.sampler import OSTSampler
from ost_hf.training.weighted import WeightedLossMixin

logger = logging.getLogger(__name__)


class SelectionMixin(WeightedLossMixin):
    """Chooses rows before the first training, and trains on those.

    It overrides ``train`` and ``get_train_dataloader`` (which choose first), the choice of the train sampler,
    ``num_examples`` (so that logs count kept rows), and ``log``.
    """

    _plan: SelectionPlan | None = None
    _selection: Selection | None = None
    _kept: Kept | None = None
    _kept_dataset: Any = None

    @property
    def selection(self) -> Selection | None:
        """The selection that is trained on; ``None`` before it was made, and in a plain ``Trainer``."""
        return self._selection

    def score(self) -> ScoreTable | None:
        """Scores the training set now, which ``train`` would do first; what is scored already is not scored again.

        Returns:
            The score table; ``None`` where the selection does not come from a score table in a folder.
        """
        if self._plan is None:
            return None
        with self._aside(), preserved_random_state():
            return self._plan.score()

    def select(self) -> Selection | None:
        """Chooses the rows to train on now, which ``train`` would do first; the second time nothing is done.

        Returns:
            The selection; ``None`` in a plain ``Trainer``.

        Raises:
            DataError: If the selection does not fit the training set.
        """
        if self._plan is not None and self._selection is None:
            with self._aside(), preserved_random_state():
                selection = self._plan.select()
                if self._plan.weighted:
                    check_weights(selection.table)
                self._take(selection)
            self._selection = selection
        return self._selection

    def _take(self, selection: Selection) -> None:
        """Makes ``self.train_dataset``, or ``self._kept``, of the selection's rows."""
        raise AssertionError("a trainer says how it takes its rows")

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As in ``Trainer``; scores and selects first where that was not done yet."""
        self.select()
        return super().train(*args, **kwargs)  # type: ignore[misc]

    def get_train_dataloader(self) -> DataLoader:
        """As in ``Trainer``, of the kept rows."""
        self.select()
        with self._weighing_collator():
            return super().get_train_dataloader()  # type: ignore[misc]

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Keeps a model that a single device holds in main memory while a proxy needs the device's."""
        scores_here = self._plan is not None and self._plan.request is not None and self._plan.scores is None
        movable = getattr(self.model, "quantization_method", None) is None  # type: ignore[attr-defined]
        placed = getattr(self, "place_model_on_device", False) and self.args.device.type != "cpu"  # type: ignore[attr-defined]
        place = scores_here and movable and placed
        if place:
            self._move_model_to_device(self.model, torch.device("cpu"))  # type: ignore[attr-defined]
        try:
            yield
        finally:
            if place:
                self._move_model_to_device(self.model, self.args.device)  # type: ignore[attr-defined]

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler | None:
        if self._kept is None:
            return super()._get_train_sampler(train_dataset)  # type: ignore[misc]
        # The dataset the loader will hold: Trainer may have removed columns from its own.
        self._kept_dataset = self.train_dataset if train_dataset is None else train_dataset  # type: ignore[attr-defined]
        args = self.args  # type: ignore[attr-defined]
        seed = args.data_seed if args.data_seed is not None else args.seed
        sampler = OSTSampler(self._kept.indices, self._kept.utilities, sampling_order(args), seed)
        self.remove_callback(_SetEpoch)  # type: ignore[attr-defined]  # of a loader before this one
        self.add_callback(_SetEpoch(sampler))  # type: ignore[attr-defined]
        return sampler

    def num_examples(self, dataloader: DataLoader) -> int:
        """Rows an epoch passes over: the kept ones for the training set."""
        if self._kept is not None and getattr(dataloader, "dataset", None) is self._kept_dataset:
            return len(self._kept.indices)
        return super().num_examples(dataloader)  # type: ignore[misc]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds to the closing line of a training how many rows of the pool were trained on."""
        if self._kept is not None and "train_runtime" in logs:
            logs["train_rows_kept"] = len(self._kept.indices)
            logs["train_rows_pool"] = self._kept.pool_size
        super().log(logs, *args, **kwargs)  # type: ignore[misc]


class _SetEpoch(transformers.TrainerCallback):
    """Tells the sampler its epoch.

    A run that several processes resume in the middle of an epoch hides the sampler behind Accelerate's
    skipping and sharing batch samplers, where ``Trainer`` does not find it.
    """

    def __init__(self, sampler: OSTSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))


@contextmanager
def preserved_random_state() -> Iterator[None]:
    """Leaves all random generators as they were: a training is the same whether its rows were scored just before."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
