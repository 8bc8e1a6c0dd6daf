"""What is timed against each other on the same batches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmark.presets import Case, Row, Sizes
from ost_hf.functional.batched import BatchedExact
from ost_hf.functional.exact import exact_utilities, losses_without_candidate
from ost_hf.functional.forward import CentralDifference, anchor_direction, choose_step, slopes_by_backward
from ost_hf.functional.loss import per_sample_loss
from ost_hf.functional.reverse import AnchorDirections, anchor_directions, first_order_utilities
from ost_hf.functional.step import UpdateRule

LEARNING_RATE = 1e-4


@dataclass
class Lineup:
    """A case with everything prepared that a run prepares once: anchor directions, steps, caches."""

    case: Case
    sizes: Sizes
    rule_name: str = "sgd"
    rule: UpdateRule = field(init=False)
    batches: list[Row] = field(init=False)
    anchors: list[Row] = field(init=False)

    def __post_init__(self) -> None:
        proxy = self.case.proxy
        self.model, self.pairs = proxy.model, proxy.pairs
        self.rule = UpdateRule(self.rule_name, LEARNING_RATE, state=proxy.adam)
        self.batches = self.case.batches(self.case.candidates, self.sizes.batch_tokens)
        self.anchors = self.case.batches(self.case.anchors[: self.sizes.anchors], self.sizes.batch_tokens)

    def plain_forward(self) -> None:
        """Loss over the supervised tokens, with the same saving of logits, nothing else."""
        with torch.no_grad():
            for batch in self.batches:
                per_sample_loss(self.model, batch)

    def lora_training_step(self) -> Callable[[], None]:
        """As users train today: all logits, backward, an AdamW step for each batch (of size zero here)."""
        parameters = list(self.case.proxy.parameters.values())
        optimizer = torch.optim.AdamW(parameters, lr=0.0)

        def run() -> None:
            for parameter in parameters:
                parameter.requires_grad_(True)
            for batch in self.batches:
                self.model(**batch, use_cache=False).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            for parameter in parameters:
                parameter.requires_grad_(False)

        return run

    def whole_model_steps(self, batches: list[Row]) -> dict[str, Callable[[], None]]:
        """The second look's training of all weights, float32: with products in float32 and in bfloat16."""
        model = copy.deepcopy(self.model).unload().float()
        optimizer = torch.optim.AdamW(model.requires_grad_(True).parameters(), lr=0.0)

        def run(in_bfloat16: bool) -> None:
            for batch in batches:
                with torch.autocast(batch["labels"].device.type, torch.bfloat16, enabled=in_bfloat16):
                    loss = per_sample_loss(model, batch).mean()
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return {"second_look_float32": lambda: run(False), "second_look_bfloat16": lambda: run(True)}

    def directions(self, utility: str, column_of: Any = None, anchors: list[Row] | None = None) -> AnchorDirections:
        """The anchor directions for ``reverse``."""
        return anchor_directions(self.model, self.pairs, anchors or self.anchors, self.rule, utility, column_of)

    def reverse(self, directions: AnchorDirections, batches: list[Row] | None = None) -> Tensor:
        """First-order utilities of all candidates ``[B]``, norms included."""
        scores = [
            first_order_utilities(self.model, self.pairs, batch, directions, self.rule)
            for batch in batches or self.batches
        ]
        return torch.cat([score.utility @ directions.share for score in scores])

    def slopes_by_backward(self) -> Tensor:
        """Slopes of all candidates along the anchor direction ``[B]``, by a backward pass."""
        direction = anchor_direction(self.model, self.pairs, self.anchors, self.rule)
        slopes = [slopes_by_backward(self.model, self.pairs, direction, batch) for batch in self.batches]
        return torch.cat(slopes)

    def central(self) -> CentralDifference:
        """The forward estimator with a step chosen on the anchors."""
        direction = anchor_direction(self.model, self.pairs, self.anchors, self.rule)
        step = choose_step(self.model, self.pairs, direction, self.anchors[:2]).step
        return CentralDifference(self.model, self.pairs, direction, step)

    def forward(self, central: CentralDifference, batches: list[Row] | None = None) -> Tensor:
        """First-order utilities of all candidates ``[B]`` from forward passes."""
        return torch.cat([central(batch)[0] for batch in batches or self.batches])

    def exact(self, anchors: list[Row] | None = None) -> BatchedExact:
        """The batched exact step with its caches."""
        return BatchedExact(self.model, self.pairs, anchors or self.anchors, self.rule, self.sizes.batch_tokens)

    def reference(self, count: int, anchors: int, start: int = 0) -> Callable[[], Tensor]:
        """The yardstick: one gradient, one step, all anchors in one batch; utilities ``[count]``."""
        candidates = [self.case.on_device([row]) for row in self.case.candidates[start : start + count]]
        together = [self.case.on_device(self.case.anchors[:anchors])]
        parameters = self.case.proxy.parameters
        # Once for a whole pool, so not on the clock.
        before = losses_without_candidate(self.model, parameters, together, self.rule)

        def run() -> Tensor:
            steps = exact_utilities(self.model, parameters, candidates, together, self.rule, before)
            return torch.stack([utility.mean() for utility, _ in steps])

        return run


def in_order(rows: list[Row], values: Tensor) -> Tensor:
    """Values of length-sorted batches, back in the order of ``rows``."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    result = torch.empty_like(values)
    result[torch.tensor(order, device=values.device)] = values
    return result
