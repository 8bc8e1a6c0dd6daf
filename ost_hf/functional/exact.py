"""The definition, followed to the letter: simulate the step, evaluate every anchor, restore.

    utility:  Delta_i = L_V(theta'_0) - L_V(theta'_i)     theta'_i = step(theta, grad l(z_i; theta))

theta'_0 is the step with a zero gradient (theta itself for plain SGD). This is the readable reference
that everything faster is measured against; it costs two to three forward passes and one per anchor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ost_hf.functional.lora import Tensors
from ost_hf.functional.loss import per_sample_loss
from ost_hf.functional.step import UpdateRule


def anchor_losses(model: nn.Module, anchors: Iterable[dict[str, Tensor]]) -> Tensor:
    """``l(v; theta)`` of all anchors, ``[V]``."""
    with torch.no_grad():
        return torch.cat([per_sample_loss(model, batch) for batch in anchors])


def exact_utilities(
    model: nn.Module,
    parameters: dict[str, nn.Parameter],
    candidates: Iterable[dict[str, Tensor]],
    anchors: list[dict[str, Tensor]],
    rule: UpdateRule,
    before_V: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Per-anchor utility of each candidate.

    Args:
        model: The proxy, in evaluation mode.
        parameters: Its adaptable parameters by name; the base is frozen.
        candidates: Batches of one sample each.
        anchors: The anchor set in batches.
        rule: The simulated step.
        before_V: What :func:`losses_without_candidate` gave for the same anchors, if it is known already.

    Yields:
        ``(utility [V], loss [])``: the drop of each anchor's loss, and the candidate's own loss. The model
        is left as it was, whatever happens.
    """
    if before_V is None:
        before_V = losses_without_candidate(model, parameters, anchors, rule)
    for candidate in candidates:
        loss, gradients = sample_gradient(model, parameters, candidate)
        with _stepped(parameters, gradients, rule):
            after_V = anchor_losses(model, anchors)
        yield before_V - after_V, loss


def losses_without_candidate(
    model: nn.Module, parameters: dict[str, nn.Parameter], anchors: list[dict[str, Tensor]], rule: UpdateRule
) -> Tensor:
    """``l(v; theta'_0)`` of all anchors, ``[V]``: after the step with a zero gradient."""
    zero = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    with _stepped(parameters, zero, rule):
        return anchor_losses(model, anchors)


def sample_gradient(
    model: nn.Module, parameters: dict[str, nn.Parameter], sample: dict[str, Tensor]
) -> tuple[Tensor, Tensors]:
    """Loss and gradient of one sample (or the sum over a batch), ``.grad`` untouched.

    Returns:
        The loss, a scalar; gradients by parameter name.
    """
    with _requiring_grad(parameters):
        loss = per_sample_loss(model, sample).sum()
        gradients = torch.autograd.grad(loss, list(parameters.values()))
    return loss.detach(), dict(zip(parameters, gradients, strict=True))


@contextmanager
def _requiring_grad(parameters: dict[str, nn.Parameter]) -> Iterator[None]:
    flags = {name: parameter.requires_grad for name, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(flags[name])


@contextmanager
def _stepped(parameters: dict[str, nn.Parameter], gradients: Tensors, rule: UpdateRule) -> Iterator[None]:
    """The model after one step; bit for bit as before on leaving."""
    kept = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    try:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(rule.step(name, kept[name], gradients[name]))
        yield
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(kept[name])
