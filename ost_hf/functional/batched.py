"""The exact utility again, fast: many candidates step at once, and nothing frozen is computed twice.

Same definition and same numbers as :mod:`ost_hf.functional.exact`. What is saved:

* the gradients of a batch of candidates come from one backward pass;
* the anchors' image features, embeddings and hidden states below the first adapted layer are computed once,
  when the object is made (with adapters on the last k of L layers, an anchor then costs k/L of a forward);
* C candidates share the base layers' matrix products over C copies of the anchors, each with its own adapter
  by a batched product. C is as many as fit ``batch_tokens``; a batch of anchors that fills it has C = 1;
* anchors are cut into batches of like length that stay within ``batch_tokens``: less padding, and on a CPU
  activations that stay in its cache.

Letters: B candidates, C of them at once, V anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ost_hf.functional.frozen import Recording, anatomy_of, recording, replaying
from ost_hf.functional.lora import LoraPair, Tensors, weights_of, with_weights
from ost_hf.functional.loss import per_sample_loss
from ost_hf.functional.reverse import per_sample_gradients
from ost_hf.functional.step import UpdateRule


@dataclass(frozen=True)
class _AnchorBatch:
    """C copies of a few anchors, one copy after the other, as far as adapters cannot change them."""

    batch: dict[str, Tensor]
    copies: int
    recorded: Recording


class BatchedExact:
    """Per-anchor utilities of batches of candidates by simulated steps.

    Args:
        model: The proxy in evaluation mode.
        pairs: Its adapted layers.
        anchors: The anchor set in batches; each is evaluated at once.
        rule: The simulated step.
        batch_tokens: Padded tokens of anchors evaluated at once, copies included.
    """

    def __init__(
        self,
        model: Any,
        pairs: Sequence[LoraPair],
        anchors: Sequence[dict[str, Tensor]],
        rule: UpdateRule,
        batch_tokens: int,
    ):
        self.model, self.pairs, self.rule = model, pairs, rule
        self.parameters = {name: weight.detach() for name, weight in weights_of(pairs).items()}
        self.anatomy = anatomy_of(model, pairs)
        self.anchors = [self._record(batch, max(1, batch_tokens // batch["labels"].numel())) for batch in anchors]
        zero = {name: torch.zeros_like(weight)[None] for name, weight in self.parameters.items()}
        # The step without a candidate, by the same path and in the same composition: rounding cancels.
        self.before_V = torch.cat([self._losses(anchor, zero)[0] for anchor in self.anchors])

    def utilities(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Per-anchor utility of each candidate in a batch.

        Args:
            batch: Model inputs with labels, B samples.

        Returns:
            ``(utility [B, V], loss [B])``: the drop of each anchor's loss, and the candidates' own losses.
        """
        gradients: Tensors = {}
        loss_B = per_sample_gradients(self.model, self.pairs, batch, gradients.__setitem__)
        after_BV = torch.cat([self._losses(anchor, gradients) for anchor in self.anchors], dim=1)
        return self.before_V - after_BV, loss_B

    def _losses(self, anchor: _AnchorBatch, gradients: Tensors) -> Tensor:
        """Losses ``[B, V of this batch]`` after a step on each of B gradients."""
        count = len(next(iter(gradients.values())))
        losses = []
        for start in range(0, count, anchor.copies):
            # The last group is filled up, so that every candidate is computed in the same composition.
            chosen = [min(start + i, count - 1) for i in range(anchor.copies)]
            stepped = {
                name: self.rule.step(name, self.parameters[name], gradient[chosen])
                for name, gradient in gradients.items()
            }
            with torch.inference_mode(), with_weights(self.pairs, stepped), replaying(self.anatomy, anchor.recorded):
                loss = per_sample_loss(self.model, anchor.batch)
            losses.append(loss.view(anchor.copies, -1)[: min(anchor.copies, count - start)])
        return torch.cat(losses)

    def _record(self, batch: dict[str, Tensor], copies: int) -> _AnchorBatch:
        repeated = {key: torch.cat([value] * copies) for key, value in batch.items()}
        with torch.inference_mode(), recording(self.anatomy) as recorded:
            per_sample_loss(self.model, repeated)
        return _AnchorBatch(repeated, copies, recorded)
