"""One-step-train: what would one optimizer step on this candidate do to the anchors' loss?"""

from __future__ import annotations

import logging
from typing import Any

import torch

from ost_hf.data.batching import cut_batches
from ost_hf.data.encoding import Encoded, EncodedDataset
from ost_hf.errors import ConfigError, ModelError
from ost_hf.functional.normalise import DIVIDED, divisor
from ost_hf.functional.step import UpdateRule
from ost_hf.parallel import free_memory
from ost_hf.proxy.model import Proxy
from ost_hf.scorers.base import Score, register
from ost_hf.scorers.config import ScorerConfig
from ost_hf.scorers.inputs import ToDevice, anchor_groups, default_batch_tokens, encode_anchors
from ost_hf.scorers.one_step.estimators import ESTIMATORS, AnchorSet, Estimator, Forward

logger = logging.getLogger(__name__)


@register("one_step")
class OneStepScorer:
    """Scores with a warm proxy against anchors.

    Args:
        config: Estimator, utility, update rule.
        proxy: The proxy.
        anchors: The anchors, encoded for the proxy.

    Raises:
        ConfigError: If the estimator needs the whole pool.
        ModelError: If the AdamW rule is asked of a cold proxy, or the proxy cannot be scored with as asked.
        DataError: If an anchor cannot be encoded (the anchor set is small, clean and chosen by hand), or
            there is no column to group by.
    """

    def __init__(self, config: ScorerConfig, proxy: Proxy, anchors: EncodedDataset, **unused: Any):
        if config.estimator not in ESTIMATORS:
            raise ConfigError(
                f"scoring.estimator {config.estimator!r} ranks a whole pool and cannot score single batches; use the "
                f"score stage (score_pool), or one of {', '.join(ESTIMATORS)}"
            )
        if config.update_rule == "adamw" and proxy.adam is None:
            raise ModelError(
                "update_rule 'adamw' steps from the warm-up's moments, but the proxy is cold (proxy.warmup_fraction "
                "is 0): warm it up, or set scoring.update_rule to sgd"
            )
        self.config = config
        self.batch_size = config.batch_size
        self.batch_tokens = config.batch_tokens or default_batch_tokens()
        self.proxy = proxy
        self.rule = UpdateRule(config.update_rule, config.step_size, state=proxy.adam)
        self._inputs = ToDevice(proxy.processing_class)
        encoded = encode_anchors(anchors)
        self.group_names, numbers = anchor_groups(anchors, config.group_by)
        self.anchors, self.estimator = self._build(encoded, numbers)
        self.facts = {"forward": self.estimator.facts} if isinstance(self.estimator, Forward) else {}

    def score(self, batch: list[Encoded]) -> list[Score]:
        """Utilities of a batch of candidates."""
        estimates = self.estimator(self._inputs(batch))
        if self.config.utility in DIVIDED:
            tokens = torch.tensor([row.tokens for row in batch])
            estimates = estimates.over(
                divisor(self.config.utility, estimates.loss, tokens, estimates.columns.get("grad_norm"))
            )
        scores = []
        for i in range(len(batch)):
            columns = {name: float(values[i]) for name, values in estimates.columns.items()}
            if estimates.groups is not None:
                named = zip(self.group_names, estimates.groups[i].tolist(), strict=True)
                columns |= {f"group:{name}": utility for name, utility in named}
            error = None if estimates.error is None else float(estimates.error[i])
            sketch = None if estimates.sketch is None else estimates.sketch[i].tolist()
            per_anchor = None if estimates.per_anchor is None else estimates.per_anchor[i].tolist()
            scores.append(
                Score(float(estimates.utility[i]), float(estimates.loss[i]), error, columns, sketch, per_anchor)
            )
        return scores

    def _build(self, encoded: list[Encoded], groups: list[int]) -> tuple[AnchorSet, Estimator]:
        """The estimator, with as many anchors at once as the device's memory holds."""
        # One anchor at a time: the forward estimator's set-up is its only backward pass.
        one_by_one = self.config.estimator == "forward"
        while True:
            batches = cut_batches(encoded, self.batch_tokens, 1 if one_by_one else None)
            number_of = [groups[row.row] for batch in batches for row in batch] if groups else None
            try:
                places = [row.row for batch in batches for row in batch]
                anchors = AnchorSet([self._inputs(batch) for batch in batches], number_of, self.batch_tokens, places)
                return anchors, ESTIMATORS[self.config.estimator](self.config, self.proxy, anchors, self.rule)
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
