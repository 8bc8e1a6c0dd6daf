"""LESS (Xia et al. 2024, "Selecting Influential Data for Targeted Instruction Tuning", arXiv 2402.04333).

A short warm-up leaves checkpoints theta_c with their Adam moments and learning rates eta_c (the mean of the epoch).
The influence of a candidate z on task j with the anchors V_j is

    utility_j(z) = sum_c w_c cos(S mean_{v in V_j} g_c(v), S Gamma_c(z)),    w_c = eta_c / sum of all eta

and its utility is the largest over the tasks. g is the gradient of the mean loss over a row's answer with respect to
the adapter, S a random projection, and Gamma the step that Adam would take on the candidate at unit learning rate:

    m' = (b1 m + (1 - b1) g) / (1 - b1^(t+1))
    v' = (b2 v + (1 - b2) g^2) / (1 - b2^(t+1))
    Gamma = m' / (sqrt(v') + eps)

It holds the momentum m, which is the same for all candidates: a utility above zero says little, its order does.

Choices and deviations: the mean gradient of a task's anchors is compared, as the paper writes it (its code takes the
mean of the cosines with each). Moments are corrected for their bias and eps stands outside of the root, as in the
optimizer that made the checkpoints (the authors' code corrects nothing and has eps inside). The w_c are divided by
their sum, as in the code: utilities lie in [-1, 1]. S is a seeded sketch with signs
(:mod:`ost_hf.functional.sketch`) in place of a dense random matrix.

Letters: B samples, J tasks, F numbers of a projected gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import Encoded, Features
from ost_hf.functional.reverse import per_sample_gradients
from ost_hf.functional.sketch import Sketch
from ost_hf.functional.step import UpdateRule
from ost_hf.proxy.model import Proxy
from ost_hf.scorers.inputs import ToDevice, anchor_groups, default_batch_tokens, encode_anchors, over_anchors
from ost_hf.scorers.less.options import LessOptions
from ost_hf.scorers.less.warmup import Checkpoint, holding, stored_checkpoints


@dataclass(frozen=True)
class _Judge:
    """A checkpoint, its share in the utility, Adam's step from it, and the tasks' directions ``[J, F]`` of length 1."""

    checkpoint: Checkpoint
    share: float
    rule: UpdateRule
    directions: Tensor


class LessScorer:
    """Ranks by the influence on the task that gains most; with ``group_by``, a task is a group and has a column.

    ``loss`` is the candidate's at the last checkpoint.

    Args:
        config: ``group_by``, seed, batch limits.
        options: Checkpoints and projection.
        pool: The candidates, encoded for the proxy; the warm-up takes its rows from them.
        proxy: The base model and the warm-up's settings. Its own adapter is not used.
        anchors: The anchors, encoded for the proxy.
        exclude: Rows of the pool that must not be trained on.
        folder: The checkpoints are kept there.

    Raises:
        DataError: If an anchor cannot be encoded, or there is no column to group by.
        ModelError: If the proxy has no warm-up rows, or an anchor does not fit into the device's memory.
    """

    batch_size: int | None

    def __init__(
        self,
        config: Any,
        options: LessOptions,
        pool: EncodedDataset,
        proxy: Proxy,
        anchors: EncodedDataset,
        exclude: Collection[int] = (),
        folder: Path | None = None,
        **unused: Any,
    ):
        self.batch_size, self.batch_tokens = config.batch_size, config.batch_tokens or default_batch_tokens()
        self.proxy = proxy
        self.sketch = Sketch(options.projection, config.seed) if options.projection else None
        self._inputs = ToDevice(proxy.processing_class)
        encoded = encode_anchors(anchors)
        self.task_names, numbers = anchor_groups(anchors, config.group_by)
        task_of = numbers or [0] * len(encoded)
        checkpoints = stored_checkpoints(folder, proxy, pool, exclude, options.checkpoints)
        total = sum(checkpoint.learning_rate for checkpoint in checkpoints)
        self.judges = [
            _Judge(
                checkpoint,
                checkpoint.learning_rate / total,
                UpdateRule("adamw", learning_rate=1.0, state=checkpoint.adam),
                self._directions(checkpoint, encoded, task_of),
            )
            for checkpoint in checkpoints
        ]

    def score(self, batch: list[Encoded]) -> Mapping[str, Tensor]:
        """Influences of a batch of candidates."""
        inputs = self._inputs(batch)
        utility_BJ, loss_B = torch.zeros(()), torch.zeros(())
        for judge in self.judges:
            move_BF, loss_B = self._features(judge.checkpoint, inputs, _gamma(judge.rule))
            utility_BJ = utility_BJ + judge.share * (normalize(move_BF, dim=1) @ judge.directions.T).cpu()
        groups = dict(zip((f"group:{name}" for name in self.task_names), utility_BJ.unbind(1), strict=False))
        return {"utility": utility_BJ.amax(1), "loss": loss_B, **groups}

    def _directions(self, checkpoint: Checkpoint, anchors: list[Encoded], task_of: list[int]) -> Tensor:
        """The tasks' mean gradients, projected and of length 1: ``[J, F]``."""

        def gradients(rows: list[Encoded]) -> Tensor:
            return self._features(checkpoint, self._inputs(rows), lambda name, gradient: gradient)[0]

        sums_JF: Tensor | None = None
        for rows, gradient_BF in over_anchors(gradients, anchors, self.batch_tokens):
            if sums_JF is None:
                sums_JF = gradient_BF.new_zeros(max(task_of) + 1, gradient_BF.shape[1])
            tasks_B = torch.tensor([task_of[row.row] for row in rows], device=sums_JF.device)
            sums_JF.index_add_(0, tasks_B, gradient_BF)
        assert sums_JF is not None, "there are anchors"
        # The length of a mean does not matter to a cosine: a sum will do.
        return normalize(sums_JF, dim=1)

    def _features(
        self, checkpoint: Checkpoint, inputs: Features, change: Callable[[str, Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Changed and projected gradients ``[B, F]`` at a checkpoint, and losses ``[B]``."""
        parts: list[Tensor] = []

        def consume(name: str, gradient: Tensor) -> None:
            changed = change(name, gradient)
            if self.sketch is None:
                parts.append(changed.flatten(1))
            elif parts:
                parts[0] += self.sketch.part(name, changed)
            else:
                parts.append(self.sketch.part(name, changed))

        with holding(self.proxy, checkpoint.weights):
            loss_B = per_sample_gradients(self.proxy.model, self.proxy.pairs, inputs, consume)
        return torch.cat(parts, dim=1), loss_B


def _gamma(rule: UpdateRule) -> Callable[[str, Tensor], Tensor]:
    """Adam's step, momentum included, as a direction: what the parameters would lose."""

    def gamma(name: str, gradient: Tensor) -> Tensor:
        return -rule.step(name, torch.zeros_like(gradient[:1]), gradient)

    return gamma
