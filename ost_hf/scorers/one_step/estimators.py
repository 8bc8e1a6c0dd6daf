"""The estimators of the one-step utility behind one signature: a batch goes in, columns come out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ost_hf.errors import ModelError
from ost_hf.functional.batched import BatchedExact
from ost_hf.functional.forward import STEP_SHARES, CentralDifference, anchor_direction, choose_step, forward_mode
from ost_hf.functional.reverse import anchor_directions, first_order_utilities
from ost_hf.functional.sketch import Sketch
from ost_hf.functional.step import UpdateRule
from ost_hf.proxy.model import Proxy
from ost_hf.scorers.one_step.options import OneStepOptions

logger = logging.getLogger(__name__)

Batch = dict[str, Tensor]
Columns = dict[str, Tensor]

# Up to this error of its slopes, in units of their spread, the central difference is preferred: it is cheaper.
_GOOD_DIFFERENCE = 0.01
# Above it a central difference says nothing.
_USELESS_DIFFERENCE = 0.5
# Anchors that the step of the central difference is chosen on.
_STEP_ANCHORS = 16


@dataclass(frozen=True)
class AnchorSet:
    """The anchors as an estimator sees them: batches, and the group number of each anchor in their order.

    ``places`` are the anchors' places in the anchor set, in the order of the batches. ``batch_tokens`` is how many
    tokens of anchors may be evaluated at once; by default those of the largest batch.
    """

    batches: Sequence[Batch]
    groups: Sequence[int] | None = None
    batch_tokens: int | None = None
    places: Sequence[int] | None = None

    @property
    def count(self) -> int:
        """V, the number of anchors."""
        return sum(len(batch["labels"]) for batch in self.batches)


class Estimator(Protocol):
    """Estimates the utilities of a batch of candidates."""

    def __call__(self, batch: Batch) -> Columns:
        """Scores model inputs with labels ``[B, T]``.

        Returns:
            Columns of B candidates, on the CPU: ``utility [B]``, the mean over anchors, and ``loss [B]``. Where they
            are asked for and can be had: ``groups [B, G]``, the means over each group; ``anchor_utilities [B, V]``, in
            the anchors' own order, and ``utility_se [B]``, the standard error over them; ``grad_norm [B]``;
            ``sketch [B, k]``.
        """
        ...


class Reverse:
    """First order from one batched forward and backward pass: :mod:`ost_hf.functional.reverse`."""

    def __init__(self, config: Any, options: OneStepOptions, proxy: Proxy, anchors: AnchorSet, rule: UpdateRule):
        self.proxy, self.rule = proxy, rule
        self.per_anchor, self.anchors = config.per_anchor, anchors
        column_of = range(anchors.count) if config.per_anchor else anchors.groups
        kind = "mean_cosine" if options.utility == "mean_cosine" else "raw"
        self.directions = anchor_directions(proxy.model, proxy.pairs, anchors.batches, rule, kind, column_of)
        self.sketch = Sketch(config.sketch_size, config.seed) if config.sketch_size else None

    def __call__(self, batch: Batch) -> Columns:
        """Scores model inputs with labels."""
        scores = first_order_utilities(
            self.proxy.model, self.proxy.pairs, batch, self.directions, self.rule, self.sketch
        )
        columns = {"loss": scores.loss.cpu(), "grad_norm": scores.grad_norm.cpu()}
        if scores.sketch is not None:
            columns["sketch"] = scores.sketch.cpu()
        if self.per_anchor:
            return columns | _over_anchors(scores.utility, self.anchors)
        if self.anchors.groups is not None:
            columns["groups"] = scores.utility.cpu()
        return columns | {"utility": (scores.utility @ self.directions.share).cpu()}


class Forward:
    """First order from forward passes alone: :mod:`ost_hf.functional.forward`.

    The direction itself comes from a backward pass over each anchor; given one by one, they need little memory too.

    Raises:
        ModelError: If the central difference does not see the slopes at this precision, or forward mode is
            asked of a model whose kernels do not have it.
    """

    def __init__(self, config: Any, options: OneStepOptions, proxy: Proxy, anchors: AnchorSet, rule: UpdateRule):
        self.proxy = proxy
        self.direction = anchor_direction(proxy.model, proxy.pairs, anchors.batches, rule)
        if self.direction.norm == 0:
            raise ModelError("the anchors' mean gradient is zero: no candidate could help or hurt them")
        self.chosen = choose_step(proxy.model, proxy.pairs, self.direction, _first_samples(anchors.batches))
        self.slopes: Callable[[Batch], tuple[Tensor, Tensor]] = CentralDifference(
            proxy.model, proxy.pairs, self.direction, self.chosen.step
        )
        self.derivative = "central"
        if options.derivative == "forward_mode" or (
            options.derivative == "auto" and not self.chosen.error <= _GOOD_DIFFERENCE
        ):
            self._try_forward_mode(anchors.batches[0], required=options.derivative == "forward_mode")
        if self.derivative == "central" and not self.chosen.error <= _USELESS_DIFFERENCE:
            raise ModelError(
                f"on the anchors, the best step of the central difference misses the true slopes by "
                f"{self.chosen.error:.0%} of their spread: at this precision estimator 'forward' says nothing; use "
                "'reverse', or a proxy with dtype float32"
            )
        logger.info("forward estimator: %s, error on the anchors %.2g", self.derivative, self.chosen.error)

    def __call__(self, batch: Batch) -> Columns:
        """Scores model inputs with labels."""
        slope, loss = self.slopes(batch)
        return {"utility": slope.cpu(), "loss": loss.cpu()}

    @property
    def facts(self) -> dict[str, Any]:
        """How it differentiates, and how far the best central difference was from the true slopes (of their spread)."""
        return {
            "derivative": self.derivative,
            "central_step": self.chosen.step,
            "central_error_on_anchors": self.chosen.error if math.isfinite(self.chosen.error) else None,
        }

    def _try_forward_mode(self, batch: Batch, required: bool) -> None:
        def slopes(batch: Batch) -> tuple[Tensor, Tensor]:
            return forward_mode(self.proxy.model, self.proxy.pairs, batch, self.direction)

        try:
            slopes(batch)
        except NotImplementedError as error:
            if "forward AD" not in str(error):  # the model's own, which no other derivative would mend
                raise
            if not required:
                logger.info("no forward-mode derivative in this model (%s)", str(error).splitlines()[0])
                return
            raise ModelError(
                f"scoring.one_step.derivative 'forward_mode' is not possible: {str(error).splitlines()[0]} Set "
                "proxy.attn_implementation to eager, or scoring.one_step.derivative to central"
            ) from error
        self.slopes, self.derivative = slopes, "forward_mode"


class Exact:
    """The simulated step, batched: :mod:`ost_hf.functional.batched`."""

    def __init__(self, config: Any, options: OneStepOptions, proxy: Proxy, anchors: AnchorSet, rule: UpdateRule):
        self.anchors, self.per_anchor = anchors, config.per_anchor
        tokens = anchors.batch_tokens or max(batch["labels"].numel() for batch in anchors.batches)
        self.exact = BatchedExact(proxy.model, proxy.pairs, anchors.batches, rule, tokens)

    def __call__(self, batch: Batch) -> Columns:
        """Scores model inputs with labels."""
        utility_BV, loss = self.exact.utilities(batch)
        columns = _over_anchors(utility_BV, self.anchors) | {"loss": loss.cpu()}
        if not self.per_anchor:
            del columns["anchor_utilities"]
        return columns


ESTIMATORS: dict[str, Any] = {"reverse": Reverse, "forward": Forward, "exact": Exact}


def passes_of(estimator: str, anchors: int) -> int:
    """Forward passes that a candidate takes, or what costs as much.

    Two by ``reverse``: forward, and backward without gradients of frozen weights. Two by ``forward``: two points, or a
    point and its derivative. By ``exact`` the candidate's gradient, which is two, then one of each anchor. What parts
    below the first adapter save is not taken off.
    """
    return 2 + (anchors if estimator == "exact" else 0)


def setup_passes_of(estimator: str, anchors: int) -> int:
    """The same for what an estimator does with the anchors before the first candidate.

    By ``reverse`` and ``forward`` each anchor's gradient; ``forward`` then tries its steps on a few anchors. By
    ``exact`` two passes of each anchor, which are recorded and evaluated without a candidate; copies that fill a batch
    up are not counted.
    """
    tried = min(anchors, _STEP_ANCHORS) * 2 * (1 + len(STEP_SHARES)) if estimator == "forward" else 0
    return 2 * anchors + tried


def _over_anchors(utility_BV: Tensor, anchors: AnchorSet) -> Columns:
    """Means, group means and standard errors of per-anchor utilities."""
    utility_BV = utility_BV.cpu()
    count = utility_BV.shape[1]
    in_order = utility_BV if anchors.places is None else utility_BV[:, torch.as_tensor(anchors.places).argsort()]
    columns = {"utility": utility_BV.mean(1), "anchor_utilities": in_order}
    if count > 1:
        columns["utility_se"] = utility_BV.std(1) / count**0.5
    if anchors.groups is not None:
        number_V = torch.as_tensor(anchors.groups)
        means = [utility_BV[:, number_V == group].mean(1) for group in range(int(number_V.max()) + 1)]
        columns["groups"] = torch.stack(means, dim=1)
    return columns


def _first_samples(batches: Sequence[Batch], count: int = _STEP_ANCHORS) -> list[Batch]:
    chosen: list[Batch] = []
    for batch in batches:
        if sum(len(taken["labels"]) for taken in chosen) >= count:
            break
        chosen.append(batch)
    return chosen
