"""First-order utilities without a backward pass: the slope of a candidate's loss along one direction.

With the anchors' mean gradient g_V and the step made linear, displacement_i ~ -c g_i
(:meth:`UpdateRule.linear_rate`), the first-order drop of the anchors' loss is a directional derivative:

    Delta_i ~ <c g_V, g_i> = d/dh l(z_i; theta + h c g_V) at h = 0

It comes from forward-mode differentiation (a Jacobian-vector product), or from the central difference

    (l(z_i; theta + h u) - l(z_i; theta - h u)) / (2 h) |w|      w = c g_V, u = w / |w|

of two plain forward passes, which any attention kernel can do. What the adapter cannot change is computed once
for both. No activation of a candidate is kept; gradient norms, and so cosines, are not to be had this way. The
direction and the check of h do take a backward pass over the anchors, which may be given one by one.

Letters: B samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ost_hf.functional.frozen import anatomy_of, recording, replaying
from ost_hf.functional.lora import LoraPair, Tensors, weights_of, with_weights
from ost_hf.functional.loss import per_sample_loss
from ost_hf.functional.reverse import anchor_directions, per_sample_gradients
from ost_hf.functional.step import UpdateRule

Batch = dict[str, Tensor]

# Steps tried for the central difference, as shares of the adapter's norm.
STEP_SHARES = tuple(10 ** (-power / 2) for power in range(9))


@dataclass(frozen=True)
class Direction:
    """``w``, what candidates' gradients are multiplied with: one tensor per parameter."""

    values: Tensors

    @property
    def norm(self) -> float:
        """The length of ``w``."""
        return float(torch.stack([value.double().square().sum() for value in self.values.values()]).sum().sqrt())


def anchor_direction(model: Any, pairs: Sequence[LoraPair], anchors: Sequence[Batch], rule: UpdateRule) -> Direction:
    """``c g_V``: the mean anchor gradient, scaled by the linear step.

    Args:
        model: The proxy in evaluation mode.
        pairs: Its adapted layers.
        anchors: Batches of anchors.
        rule: The step.

    Raises:
        ConfigError: If the rule's step cannot be made linear.
    """
    # First, so that a rule which has no rate says so before the passes over the anchors.
    rates = {name: rule.linear_rate(name, weight.detach()) for name, weight in weights_of(pairs).items()}
    means = anchor_directions(model, pairs, anchors, rule, "raw").columns
    return Direction({name: rates[name] * mean[0] for name, mean in means.items()})


def forward_mode(model: Any, pairs: Sequence[LoraPair], batch: Batch, direction: Direction) -> tuple[Tensor, Tensor]:
    """Slope of every sample's loss along ``w`` by forward-mode differentiation.

    Returns:
        ``(slope [B], loss [B])``.

    Raises:
        NotImplementedError: If a kernel of the model has no forward-mode derivative (PyTorch's message).
    """
    with torch.no_grad(), forward_ad.dual_level():
        duals = {
            name: forward_ad.make_dual(weight.detach(), direction.values[name].to(weight))[None]
            for name, weight in weights_of(pairs).items()
        }
        with with_weights(pairs, duals):
            loss, slope = forward_ad.unpack_dual(per_sample_loss(model, batch))
    assert slope is not None, "the loss does not depend on the adapter"
    return slope, loss


class CentralDifference:
    """Slope of every sample's loss along ``w`` from two plain forward passes.

    Args:
        model: The proxy in evaluation mode.
        pairs: Its adapted layers.
        direction: ``w``.
        step: h, the length of the move along the unit direction.
    """

    def __init__(self, model: Any, pairs: Sequence[LoraPair], direction: Direction, step: float):
        self.model, self.pairs, self.step = model, pairs, step
        self.anatomy = anatomy_of(model, pairs)
        self.norm = direction.norm
        self._moved = [
            {
                name: (weight.detach() + sign * step / self.norm * direction.values[name].to(weight))[None]
                for name, weight in weights_of(pairs).items()
            }
            for sign in (1, -1)
        ]

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores a batch.

        Returns:
            ``(slope [B], loss [B])``; the loss is the mean of the two, h^2/2 times the curvature above the
            unmoved one.
        """
        with torch.inference_mode():
            with with_weights(self.pairs, self._moved[0]), recording(self.anatomy) as recorded:
                above = per_sample_loss(self.model, batch)
            with with_weights(self.pairs, self._moved[1]), replaying(self.anatomy, recorded):
                below = per_sample_loss(self.model, batch)
        return (above - below) * (self.norm / (2 * self.step)), (above + below) / 2


@dataclass(frozen=True)
class ChosenStep:
    """A step of the central difference and how far its slopes were from the true ones.

    ``error`` is the root mean square difference from the backward pass's slopes in units of their spread;
    ``errors`` holds it for every step that was tried.
    """

    step: float
    error: float
    errors: dict[float, float]


def choose_step(model: Any, pairs: Sequence[LoraPair], direction: Direction, samples: Sequence[Batch]) -> ChosenStep:
    """Finds the step of the central difference by trying, against slopes from a backward pass.

    A long step bends (error of order h^2), a short one drowns in rounding (error of order 1/h): which is
    which depends on precision, model and direction, so all of ``STEP_SHARES`` times the adapter's norm are
    tried on a few samples.

    Args:
        model: The proxy in evaluation mode.
        pairs: Its adapted layers.
        direction: ``w``.
        samples: A few batches; anchors, so that the step does not depend on the pool.

    Returns:
        The step of least root mean square error, and every step's error in units of the slopes' spread.
    """
    true = torch.cat([slopes_by_backward(model, pairs, direction, batch) for batch in samples]).double()
    spread = float(true.std()) if len(true) > 1 else float(true.abs())
    weights = weights_of(pairs).values()
    scale = math.sqrt(sum(float(weight.detach().double().square().sum()) for weight in weights))
    errors = {}
    for share in STEP_SHARES:
        difference = CentralDifference(model, pairs, direction, share * scale)
        slopes = torch.cat([difference(batch)[0] for batch in samples]).double()
        errors[share * scale] = float((slopes - true).square().mean().sqrt()) / max(spread, 1e-300)
    # NaN is no small error.
    best = min(errors, key=lambda step: errors[step] if errors[step] == errors[step] else math.inf)
    return ChosenStep(best, errors[best], errors)


def slopes_by_backward(model: Any, pairs: Sequence[LoraPair], direction: Direction, batch: Batch) -> Tensor:
    """``<w, g_i>`` of every sample by a backward pass, ``[B]``: what the others are held against."""
    parts: list[Tensor] = []

    def dot(name: str, gradient: Tensor) -> None:
        parts.append(gradient.flatten(1) @ direction.values[name].to(gradient).flatten())

    per_sample_gradients(model, pairs, batch, dot)
    return torch.stack(parts).sum(0)
