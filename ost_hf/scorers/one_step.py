"""One-step-train: what would one optimizer step on this candidate do to the anchors' loss?"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from ost_hf.data.collator import Collator
from ost_hf.data.encoding import Encoded, EncodedDataset
from ost_hf.errors import DataError, ModelError
from ost_hf.parallel import state
from ost_hf.proxy.model import Proxy
from ost_hf.scorers.base import Score, register
from ost_hf.scorers.config import ScorerConfig
from ost_hf.utility.exact import exact_utilities
from ost_hf.utility.reverse import AnchorDirections, anchor_directions, first_order_utilities
from ost_hf.utility.step import UpdateRule

logger = logging.getLogger(__name__)


@register("one_step")
class OneStepScorer:
    """Scores with a warm proxy against anchors.

    Args:
        config: Estimator, utility, update rule.
        proxy: The proxy.
        anchors: The anchors, encoded for the proxy.

    Raises:
        ModelError: If the AdamW rule is asked of a cold proxy.
        DataError: If an anchor cannot be encoded: the anchor set is small, clean and chosen by hand.
    """

    def __init__(self, config: ScorerConfig, proxy: Proxy, anchors: EncodedDataset):
        if config.update_rule == "adamw" and proxy.adam is None:
            raise ModelError(
                "update_rule 'adamw' steps from the warm-up's moments, but the proxy is cold (proxy.warmup_fraction "
                "is 0): warm it up, or set scoring.update_rule to sgd"
            )
        self.config = config
        self.batch_size = config.batch_size
        self.proxy = proxy
        self.rule = UpdateRule(config.update_rule, config.step_size, state=proxy.adam)
        self._collate = Collator.of(proxy.processing_class)
        self.anchors = self._anchor_batches(anchors)
        self.directions: AnchorDirections | None = None
        if config.estimator == "reverse":
            self.directions = anchor_directions(
                proxy.model, proxy.pairs, self.anchors, self.rule, config.utility, config.per_anchor
            )

    def score(self, batch: list[Encoded]) -> list[Score]:
        """Utilities of a batch of candidates."""
        return self._exact(batch) if self.directions is None else self._first_order(batch, self.directions)

    def _first_order(self, batch: list[Encoded], directions: AnchorDirections) -> list[Score]:
        inputs = self._to_device([row.features for row in batch if row.features is not None])
        scores = first_order_utilities(self.proxy.model, self.proxy.pairs, inputs, directions, self.rule)
        utility = scores.utility.mean(1).tolist()
        errors = standard_error(scores.utility)
        return [
            Score(utility[i], loss=float(scores.loss[i]), utility_se=errors[i], columns={"grad_norm": norm})
            for i, norm in enumerate(scores.grad_norm.tolist())
        ]

    def _exact(self, batch: list[Encoded]) -> list[Score]:
        candidates = [self._to_device([row.features]) for row in batch if row.features is not None]
        steps = exact_utilities(self.proxy.model, self.proxy.parameters, candidates, self.anchors, self.rule)
        return [
            Score(float(utility_V.mean()), loss=float(loss), utility_se=standard_error(utility_V[None])[0])
            for utility_V, loss in steps
        ]

    def _anchor_batches(self, anchors: EncodedDataset) -> list[dict[str, Tensor]]:
        encoded = [anchors.encode(row) for row in range(len(anchors))]
        unusable = [row for row in encoded if row.features is None]
        if unusable:
            first = unusable[0]
            raise DataError(
                f"{len(unusable)} of {len(encoded)} anchors cannot be used, such as row {first.row} "
                f"({first.status}: {first.detail}); every score depends on the anchors, so mend or remove them"
            )
        # Anchors of like length share a batch: less padding, and the mean does not depend on the order.
        encoded.sort(key=lambda row: (row.length, row.row))
        size = self.config.anchor_batch_size
        groups = [encoded[start : start + size] for start in range(0, len(encoded), size)]
        return [self._to_device([row.features for row in group if row.features is not None]) for group in groups]

    def _to_device(self, features: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {key: value.to(state().device) for key, value in self._collate(features).items()}


def standard_error(utility_BK: Tensor) -> list[float | None]:
    """Standard error of the mean over anchors, for each candidate; ``None`` with fewer than two columns."""
    count = utility_BK.shape[1]
    if count < 2:
        return [None] * len(utility_BK)
    return (utility_BK.std(1) / torch.tensor(float(count)).sqrt().to(utility_BK)).tolist()
