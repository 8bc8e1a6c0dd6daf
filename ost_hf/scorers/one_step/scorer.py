"""One-step-train: what would one optimizer step on this candidate do to the anchors' loss?"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ost_hf.data.batching import cut_batches
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import Encoded, Features
from ost_hf.errors import ModelError
from ost_hf.functional.normalise import DIVIDED, divisor
from ost_hf.functional.pooling import pooling
from ost_hf.functional.sketch import Sketch
from ost_hf.functional.step import UpdateRule
from ost_hf.functional.update_rules import UPDATE_RULES
from ost_hf.parallel import free_memory
from ost_hf.proxy.model import Proxy
from ost_hf.scorers.inputs import ToDevice, anchor_groups, default_batch_tokens, encode_anchors
from ost_hf.scorers.one_step.estimators import ESTIMATORS, AnchorSet, Estimator, Forward, passes_of, setup_passes_of
from ost_hf.scorers.one_step.options import OneStepOptions
from ost_hf.scorers.one_step.turns import of_turns
from ost_hf.tables.columns import VECTORS, Columns

logger = logging.getLogger(__name__)

# Columns that are utilities too: what a utility is divided by divides them.
_ALIKE = ("utility", "utility_se", "anchor_utilities")


class OneStepScorer:
    """Scores with a warm proxy against anchors.

    Args:
        config: The ``scoring`` section: batch limits, and which further columns are asked for.
        options: Estimator, utility, update rule.
        proxy: The proxy.
        anchors: The anchors, encoded for the proxy.

    Raises:
        ModelError: If the update rule needs a warm-up's moments and the proxy is cold, or the proxy cannot be scored
            with as asked.
        DataError: If an anchor cannot be encoded (the anchor set is small, clean and chosen by hand), or
            there is no column to group by.
    """

    def __init__(self, config: Any, options: OneStepOptions, proxy: Proxy, anchors: EncodedDataset, **unused: Any):
        self.config, self.options = config, options
        self.batch_size = config.batch_size
        self.batch_tokens = config.batch_tokens or default_batch_tokens()
        self.proxy = proxy
        self.rule = update_rule(options, proxy)
        self._inputs = ToDevice(proxy.processing_class)
        encoded = encode_anchors(anchors)
        self.group_names, numbers = anchor_groups(anchors, config.group_by)
        self._shortened = Sketch(config.embedding_size, config.seed) if config.embedding_size else None
        self.anchors, self.estimator = self._build(encoded, numbers)
        # A row of several turns takes more, the more it has.
        self.passes = None if config.per_turn else passes_of(options.estimator, len(anchors))
        self.setup_passes = setup_passes_of(options.estimator, len(anchors))
        self.facts = {"forward": self.estimator.facts} if isinstance(self.estimator, Forward) else {}

    def score(self, batch: list[Encoded]) -> Mapping[str, Tensor]:
        """Utilities of a batch of candidates, and the columns that were asked for."""
        columns = self._estimated(self._inputs(batch))
        if self.config.store:
            columns |= {name: columns[name].half() for name in VECTORS if name in columns}
        groups_BG = columns.pop("groups", None)
        columns |= {} if groups_BG is None else dict(zip(self._group_columns, groups_BG.unbind(1), strict=True))
        if self.options.utility in DIVIDED:
            self._divide(columns, torch.tensor([row.tokens for row in batch]))
        return columns | (of_turns(batch, columns, self._estimate_turns) if self.config.per_turn else {})

    def of_anchors(self, columns: Columns) -> Columns | None:
        """What is kept of the anchors, scored as candidates: with ``mean_cosine``, utilities against the *others*."""
        if self.options.estimator != "reverse":
            return None
        count = len(columns["utility"])
        utility = np.full(count, np.nan)
        if self.options.utility == "mean_cosine" and count > 1:
            # The cosine with itself, which is one, taken out of the mean.
            utility = (count * columns["utility"] - 1) / (count - 1)
        kept = {"loss": columns["loss"], "utility": utility}
        return kept | {name: columns[name] for name in VECTORS if name in columns}

    def _divide(self, columns: dict[str, Tensor], tokens_B: Tensor) -> None:
        by_B = divisor(self.options.utility, columns["loss"], tokens_B, columns.get("grad_norm"))
        for name, values in columns.items():
            if name in (*_ALIKE, *self._group_columns):
                columns[name] = _over(values, by_B)

    def _estimate_turns(self, rows: list[Features], tokens_B: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and utility of rows with the labels of one turn."""
        columns = self.estimator(self._inputs.features(rows))
        if self.options.utility in DIVIDED:
            self._divide(columns, tokens_B)
        return columns["loss"], columns["utility"]

    def _estimated(self, inputs: Features) -> dict[str, Tensor]:
        """The estimator's columns, and the rows' vectors where they are asked for."""
        if self._shortened is None:
            return self.estimator(inputs)
        with pooling(self.proxy.model, inputs["attention_mask"]) as pooled:
            columns = self.estimator(inputs)
        if not pooled:
            raise ModelError(
                f"{type(self.proxy.model).__name__} does not hand its hidden states of all positions to its output "
                "head, so rows get no vector: set scoring.embedding_size to 0"
            )
        vectors = pooled[-1]
        short = vectors.shape[1] <= self._shortened.size
        return columns | {"embedding": (vectors if short else self._shortened.part("embedding", vectors)).cpu()}

    @property
    def _group_columns(self) -> list[str]:
        return [f"group:{name}" for name in self.group_names]

    def _build(self, encoded: list[Encoded], groups: list[int]) -> tuple[AnchorSet, Estimator]:
        """The estimator, with as many anchors at once as the device's memory holds."""
        # One anchor at a time: the forward estimator's set-up is its only backward pass.
        one_by_one = self.options.estimator == "forward"
        while True:
            batches = cut_batches(encoded, self.batch_tokens, 1 if one_by_one else None)
            number_of = [groups[row.row] for batch in batches for row in batch] if groups else None
            try:
                places = [row.row for batch in batches for row in batch]
                anchors = AnchorSet([self._inputs(batch) for batch in batches], number_of, self.batch_tokens, places)
                build = ESTIMATORS[self.options.estimator]
                return anchors, build(self.config, self.options, self.proxy, anchors, self.rule)
            except torch.OutOfMemoryError as error:
                if len(batches) == len(encoded):
                    raise ModelError(
                        f"the device's memory is too small for one anchor of {encoded[0].length} to "
                        f"{max(row.length for row in encoded)} tokens at a time: use a smaller proxy, shorter anchors, "
                        "or per_anchor false"
                    ) from error
            free_memory()
            self.batch_tokens //= 2
            logger.warning("out of memory with the anchors; going on with %d tokens at once", self.batch_tokens)


def update_rule(options: OneStepOptions, proxy: Proxy) -> UpdateRule:
    """The simulated step from a proxy's state.

    Raises:
        ModelError: If the rule needs the warm-up's moments and the proxy is cold.
    """
    if UPDATE_RULES.find(options.update_rule).needs_moments and proxy.adam is None:
        raise ModelError(
            f"update_rule {options.update_rule!r} steps from the warm-up's moments, but the proxy is cold "
            "(proxy.warmup_fraction is 0): warm it up, or set scoring.one_step.update_rule to sgd"
        )
    return UpdateRule(options.update_rule, step_size(options), state=proxy.adam)


def step_size(options: OneStepOptions) -> float:
    """The learning rate of the simulated step."""
    if options.learning_rate is not None:
        return options.learning_rate
    return UPDATE_RULES.find(options.update_rule).default_learning_rate


def _over(values: Tensor, by_B: Tensor) -> Tensor:
    return values / by_B.view(-1, *[1] * (values.dim() - 1)).to(values)
