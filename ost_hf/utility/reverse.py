"""Per-sample LoRA gradients from one batched forward and backward, one layer at a time.

A LoRA layer adds ``s B (A x_t)`` to its base layer's output at token t. With ``d_t`` the loss gradient at
the output of B (the scaling s is already in it), sample i has

    grad_B l_i = sum_t d_t (A x_t)^T          grad_A l_i = sum_t (B^T d_t) x_t^T

so hooks that see ``x`` going in and ``d`` coming back are enough. All parameters stay frozen: autograd
never forms a weight gradient. When a layer's ``d`` arrives, its per-sample gradients are contracted over
tokens, handed to a consumer that reduces them to a few numbers per sample, and dropped.

Letters: B samples, T tokens, r rank, I inputs, O outputs, K directions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ost_hf.utility.loss import per_sample_loss
from ost_hf.utility.step import Tensors, UpdateRule

# consume(name, gradient [B, *parameter shape]): called once for each parameter during a backward pass.
Consumer = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class LoraPair:
    """The two factors of one adapted layer and the names of their weights."""

    name_a: str
    name_b: str
    a: nn.Linear
    b: nn.Linear


def per_sample_gradients(
    model: nn.Module, pairs: list[LoraPair], batch: dict[str, Tensor], consume: Consumer
) -> Tensor:
    """Streams every sample's gradient, layer by layer, to ``consume``.

    Args:
        model: The proxy in evaluation mode; its parameters are taken as frozen.
        pairs: The adapted layers. Each must run exactly once in a forward pass.
        batch: Model inputs with labels, B samples.
        consume: Receives ``(parameter name, gradient [B, ...])``.

    Returns:
        Per-sample loss ``[B]``, detached.

    Raises:
        RuntimeError: If an adapted layer did not run, or ran twice: its gradients would be wrong.
    """
    with torch.enable_grad(), _listening(pairs, consume) as (fired, expected):
        loss_B = per_sample_loss(model, batch)
        loss_B.sum().backward()
    silent = [pair.name_b for pair in pairs if expected.get(pair.name_b) != 1 or fired.get(pair.name_b) != 1]
    if silent:
        raise RuntimeError(f"{len(silent)} adapted layers did not run exactly once, such as {silent[0]}")
    return loss_B.detach()


@contextmanager
def _listening(pairs: list[LoraPair], consume: Consumer) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
    """Hooks on both factors of every pair, parameters frozen; everything is undone on leaving."""
    fired: dict[str, int] = {}
    expected: dict[str, int] = {}
    inputs: dict[str, Tensor] = {}
    flags = [(weight, weight.requires_grad) for pair in pairs for weight in (pair.a.weight, pair.b.weight)]

    def make_hooks(pair: LoraPair) -> tuple[Callable[..., None], Callable[..., Tensor]]:
        def keep_input(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if args[0].dim() != 3:
                raise RuntimeError(
                    f"{pair.name_a} gets input of shape {tuple(args[0].shape)}; per-sample gradients need [batch, "
                    "tokens, features]: leave this layer out of lora_target_modules"
                )
            inputs[pair.name_a] = args[0].detach()

        def watch_output(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            expected[pair.name_b] = expected.get(pair.name_b, 0) + 1
            x_BTI, z_BTr = inputs.pop(pair.name_a), args[0].detach()
            # Below the first adapted layer nothing needs a gradient, and there is no graph to hook into:
            # the output itself becomes its first leaf.
            if not output.requires_grad:
                output = output.detach().requires_grad_(True)

            def receive(d_BTO: Tensor) -> None:
                fired[pair.name_b] = fired.get(pair.name_b, 0) + 1
                d_BTO = d_BTO.to(x_BTI.dtype)
                consume(pair.name_b, torch.einsum("bto,btr->bor", d_BTO, z_BTr))
                consume(pair.name_a, torch.einsum("btr,bti->bri", d_BTO @ pair.b.weight, x_BTI))

            output.register_hook(receive)
            return output

        return keep_input, watch_output

    handles = []
    try:
        for weight, _ in flags:
            weight.requires_grad_(False)
        for pair in pairs:
            keep_input, watch_output = make_hooks(pair)
            handles += [pair.a.register_forward_hook(keep_input), pair.b.register_forward_hook(watch_output)]
        yield fired, expected
    finally:
        for handle in handles:
            handle.remove()
        for weight, flag in flags:
            weight.requires_grad_(flag)


@dataclass
class AnchorDirections:
    """What candidates' gradients are multiplied with: K directions per parameter.

    ``columns[name]`` is ``[K, *parameter shape]``: one column per anchor, or a single one holding their mean.
    """

    utility: str
    columns: Tensors

    @property
    def count(self) -> int:
        """K."""
        return len(next(iter(self.columns.values())))


def anchor_directions(
    model: nn.Module,
    pairs: list[LoraPair],
    anchors: list[dict[str, Tensor]],
    rule: UpdateRule,
    utility: str = "mean_cosine",
    per_anchor: bool = False,
) -> AnchorDirections:
    """Builds the anchor directions for one of the two utilities.

    * ``raw``: columns g_v, so that -<g_v, displacement_i> is the first-order drop of anchor v's loss.
    * ``mean_cosine``: columns ``P g_v / |P^(1/2) g_v|``, so that <column_v, g_i> / |P^(1/2) g_i| is the
      cosine of the two preconditioned gradients.

    Args:
        model: The proxy in evaluation mode.
        pairs: Its adapted layers.
        anchors: Batches of anchors.
        rule: Gives the preconditioner P.
        utility: ``raw`` or ``mean_cosine``.
        per_anchor: Keep a column per anchor (|V| times the adapter's memory) for standard errors.

    Returns:
        The directions; with one column, the mean over anchors.
    """
    collected: dict[str, list[Tensor]] = {}
    for batch in anchors:
        gradients: Tensors = {}
        per_sample_gradients(model, pairs, batch, gradients.__setitem__)
        if utility == "mean_cosine":
            gradients = _unit_columns(gradients, pairs, rule)
        for name, gradient in gradients.items():
            collected.setdefault(name, []).append(gradient if per_anchor else gradient.sum(0, keepdim=True))
    if per_anchor:
        return AnchorDirections(utility, {name: torch.cat(parts) for name, parts in collected.items()})
    count = sum(len(batch["labels"]) for batch in anchors)
    return AnchorDirections(utility, {name: torch.cat(p).sum(0, keepdim=True) / count for name, p in collected.items()})


def _unit_columns(gradients: Tensors, pairs: list[LoraPair], rule: UpdateRule) -> Tensors:
    weights = weights_of(pairs)
    scaled = {name: g * rule.preconditioner(name, weights[name]) for name, g in gradients.items()}
    squared = sum((gradients[name] * scaled[name]).flatten(1).sum(1) for name in gradients)
    norm = torch.as_tensor(squared).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    return {name: g / norm.view(-1, *[1] * (g.dim() - 1)) for name, g in scaled.items()}


def weights_of(pairs: list[LoraPair]) -> dict[str, Any]:
    """The adaptable parameters by name."""
    return {
        name: weight for pair in pairs for name, weight in ((pair.name_a, pair.a.weight), (pair.name_b, pair.b.weight))
    }


@dataclass(frozen=True)
class FirstOrder:
    """First-order scores of B candidates.

    ``utility [B, K]`` per direction; ``loss [B]``; ``grad_norm [B]``, the norm of the plain LoRA gradient.
    """

    utility: Tensor
    loss: Tensor
    grad_norm: Tensor


def first_order_utilities(
    model: nn.Module,
    pairs: list[LoraPair],
    batch: dict[str, Tensor],
    directions: AnchorDirections,
    rule: UpdateRule,
) -> FirstOrder:
    """Scores a batch of candidates against the anchor directions.

    ``raw`` is first order in the anchors' loss but exact in the step: the displacement of each sample
    under the rule (AdamW's non-linear one included) is formed for one layer at a time. For SGD it is
    ``eta <g_v, g_i>``, in nats per token. ``mean_cosine`` lies in [-1, 1].

    Args:
        model: The proxy in evaluation mode.
        pairs: Its adapted layers.
        batch: Model inputs with labels, B samples.
        directions: From :func:`anchor_directions`.
        rule: The same update rule.
    """
    weights = weights_of(pairs)
    dots: list[Tensor] = []
    squares: list[Tensor] = []
    preconditioned_squares: list[Tensor] = []

    def consume(name: str, gradient: Tensor) -> None:
        flat = gradient.flatten(1)
        squares.append(flat.square().sum(1))
        if directions.utility == "raw":
            flat = -rule.displacement(name, gradient).flatten(1)
        else:
            preconditioner = rule.preconditioner(name, weights[name].detach()).flatten()
            preconditioned_squares.append(flat.square() @ preconditioner)
        dots.append(flat @ directions.columns[name].flatten(1).T)

    loss = per_sample_gradients(model, pairs, batch, consume)
    dot = torch.stack(dots).sum(0)
    if directions.utility == "mean_cosine":
        norm = torch.stack(preconditioned_squares).sum(0).sqrt()
        dot = dot / norm.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    return FirstOrder(dot, loss, torch.stack(squares).sum(0).sqrt())
