"""Per-sample LoRA gradients from one batched forward and backward, one layer at a time.

A LoRA layer adds ``s B (A x_t)`` to its base layer's output at token t. With ``d_t`` the loss gradient at
the layer's output, sample i has

    grad_B l_i = s sum_t d_t (A x_t)^T          grad_A l_i = s sum_t (B^T d_t) x_t^T

All parameters stay frozen: autograd never forms a weight gradient. When a layer's ``d`` arrives, its
per-sample gradients are contracted over tokens, handed to a consumer that reduces them to a few numbers
per sample, and dropped.

Letters: B samples, T tokens, r rank, I inputs, O outputs, K directions, V anchors, k size of a sketch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ost_hf.functional.lora import LoraPair, Tensors, replaced_forward, weights_of
from ost_hf.functional.loss import per_sample_loss
from ost_hf.functional.sketch import Sketch
from ost_hf.functional.step import UpdateRule

# consume(name, gradient [B, *parameter shape]): called once for each parameter during a backward pass. A
# gradient of B lies in memory by columns, as [B, r, O].
Consumer = Callable[[str, Tensor], None]

# Under a norm that is zero a cosine is zero, not NaN.
_TINY = torch.finfo(torch.float32).tiny


def per_sample_gradients(model: Any, pairs: Sequence[LoraPair], batch: dict[str, Tensor], consume: Consumer) -> Tensor:
    """Streams every sample's gradient, layer by layer, to ``consume``.

    Args:
        model: The proxy in evaluation mode.
        pairs: The adapted layers. Each must run exactly once in a forward pass.
        batch: Model inputs with labels, B samples.
        consume: Receives ``(parameter name, gradient [B, ...])``.

    Returns:
        Per-sample loss ``[B]``, detached.

    Raises:
        RuntimeError: If an adapted layer did not run, or ran twice: its gradients would be wrong.
    """
    runs = dict.fromkeys((pair.name_b for pair in pairs), 0)

    def counting(name: str, gradient: Tensor) -> None:
        if name in runs:
            runs[name] += 1
        consume(name, gradient)

    forwards = {pair.layer: _listening(pair, len(batch["labels"]), counting) for pair in pairs}
    with torch.enable_grad(), replaced_forward(forwards):
        loss_B = per_sample_loss(model, batch)
        if loss_B.requires_grad:
            loss_B.sum().backward()
    wrong = [name for name, count in runs.items() if count != 1]
    if wrong:
        raise RuntimeError(f"{len(wrong)} adapted layers did not run exactly once, such as {wrong[0]}")
    return loss_B.detach()


def _listening(pair: LoraPair, samples: int, consume: Consumer) -> Callable[..., Tensor]:
    """The adapted layer's forward with a listener in the backward pass."""
    a, b = pair.a.weight.detach(), pair.b.weight.detach()

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if x.dim() != 3 or len(x) != samples:
            raise RuntimeError(
                f"{pair.name_a} gets input of shape {tuple(x.shape)} for a batch of {samples}; per-sample gradients "
                "need [batch, tokens, features]: leave this layer out of lora_target_modules"
            )
        base = pair.base(x)
        if x.requires_grad and not base.requires_grad:
            raise RuntimeError(
                f"the layer under {pair.name_a} ({type(pair.base).__name__}) has no derivative: gradients below it "
                "would be wrong. Load the base model unquantised, or in a format that can be trained with LoRA"
            )
        # Below the first adapted layer nothing needs a gradient, and there is no graph to hook into:
        # this output becomes its first leaf.
        if not base.requires_grad:
            base = base.detach().requires_grad_(True)
        return _Adapter.apply(base, x, a, b, pair, consume)

    return forward


class _Adapter(torch.autograd.Function):
    """``base + s B A x``; its backward pass hands the per-sample gradients of A and B to a consumer."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, x: Tensor, a: Tensor, b: Tensor, pair: LoraPair, consume: Consumer) -> Tensor:
        x_BTI = x.to(a.dtype)
        z_BTr = x_BTI @ a.T
        ctx.save_for_backward(x, z_BTr, a, b)
        ctx.pair, ctx.consume = pair, consume
        # Not a view of something flat: some models add to a layer's output in place.
        y = torch.empty(base.shape, dtype=a.dtype, device=base.device)
        flat = base.to(a.dtype).flatten(0, 1)
        torch.addmm(flat, z_BTr.flatten(0, 1), b.T, alpha=pair.scaling, out=y.flatten(0, 1))
        return y.to(base.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, z_BTr, a, b = ctx.saved_tensors
        d = grads[0]
        d_BTO = d.to(a.dtype)
        # Thin products are two to four times as fast on a CPU if the thin side comes first, or lies in memory
        # by columns; and the scaling goes into the smallest of the tensors.
        delta_BTr = (d_BTO @ b.T.contiguous().T) * ctx.pair.scaling
        ctx.consume(ctx.pair.name_b, ((z_BTr * ctx.pair.scaling).mT @ d_BTO).mT)
        ctx.consume(ctx.pair.name_a, delta_BTr.mT @ x.to(a.dtype))
        to_x = (delta_BTr @ a).to(x.dtype) if ctx.needs_input_grad[1] else None
        return d, to_x, None, None, None, None


@dataclass(frozen=True)
class AnchorDirections:
    """What candidates' gradients are multiplied with: K directions for each parameter.

    Each is the mean over the anchors of its column: ``columns[name]`` is ``[K, *parameter shape]``, and
    ``share [K]`` is the part of the anchors in each column, so that ``utility @ share`` is the mean over all.
    ``root[name]`` is P^(1/2), of the parameter's shape. Both lie in memory as gradients do: mixed layouts are slow.
    """

    utility: str
    columns: Tensors
    share: Tensor
    root: Tensors


def anchor_directions(
    model: Any,
    pairs: Sequence[LoraPair],
    anchors: Sequence[dict[str, Tensor]],
    rule: UpdateRule,
    utility: str = "mean_cosine",
    column_of: Sequence[int] | None = None,
) -> AnchorDirections:
    """Builds the anchor directions: g_v for ``raw``, the unit vector along P^(1/2) g_v for ``mean_cosine``.

    Args:
        model: The proxy in evaluation mode.
        pairs: Its adapted layers.
        anchors: Batches of anchors, V in all.
        rule: Gives the preconditioner P.
        utility: ``raw`` or ``mean_cosine``.
        column_of: The column of each anchor, in order: groups, or ``range(V)`` for a column each (V times
            the adapter's memory). One column of all by default.

    Returns:
        The directions, K columns.

    Raises:
        ValueError: For another utility, or a ``column_of`` of another length than V.
        RuntimeError: As :func:`per_sample_gradients` does.
    """
    if utility not in ("raw", "mean_cosine"):
        raise ValueError(f"utility must be raw or mean_cosine, got {utility!r}; others are a raw one, divided")
    numbers = _column_numbers(anchors, column_of)
    sizes = torch.bincount(numbers)
    root = {name: rule.preconditioner(name, weight.detach()).sqrt() for name, weight in weights_of(pairs).items()}
    root |= {pair.name_b: root[pair.name_b].T.contiguous().T for pair in pairs}
    sums: Tensors = {}
    start = 0
    for batch in anchors:
        gradients: Tensors = {}
        per_sample_gradients(model, pairs, batch, gradients.__setitem__)
        if utility == "mean_cosine":
            gradients = _unit({name: gradient * root[name] for name, gradient in gradients.items()})
        stop = start + len(batch["labels"])
        for name, gradient in gradients.items():
            if name not in sums:
                sums[name] = torch.zeros_like(gradient[:1]).expand(len(sizes), -1, -1).clone()
            sums[name].index_add_(0, numbers[start:stop].to(gradient.device), gradient)
        start = stop
    for total in sums.values():
        total /= sizes.to(total).view(-1, *[1] * (total.dim() - 1))
    like = next(iter(sums.values()))
    return AnchorDirections(utility, sums, (sizes / len(numbers)).to(like), root)


def _column_numbers(anchors: Sequence[dict[str, Tensor]], column_of: Sequence[int] | None) -> Tensor:
    """The column of each anchor: ``[V]``."""
    count = sum(len(batch["labels"]) for batch in anchors)
    numbers = torch.zeros(count, dtype=torch.long) if column_of is None else torch.as_tensor(column_of)
    if len(numbers) != count:
        raise ValueError(f"column_of must name a column for each of {count} anchors, got {len(numbers)}")
    return numbers


def _unit(gradients: Tensors) -> Tensors:
    """Each sample's gradient over its length, all parameters together."""
    norm_B = torch.linalg.vector_norm(torch.stack([_norm(g) for g in gradients.values()]), dim=0).clamp_min(_TINY)
    return {name: g / norm_B.view(-1, *[1] * (g.dim() - 1)) for name, g in gradients.items()}


def _norm(gradient: Tensor) -> Tensor:
    return torch.linalg.vector_norm(_flat(gradient), dim=1)


def _flat(gradient: Tensor) -> Tensor:
    """``[B, parameters]`` in the order in which they lie in memory, without a copy."""
    return (gradient if gradient.is_contiguous() else gradient.mT).flatten(1)


def _dot(gradient: Tensor, columns: Tensor) -> Tensor:
    """``[B, K]``."""
    if gradient.is_contiguous() == columns.is_contiguous():
        return _flat(gradient) @ _flat(columns).T
    return gradient.flatten(1) @ columns.flatten(1).T


@dataclass(frozen=True)
class FirstOrder:
    """First-order scores of B candidates.

    ``utility [B, K]`` per direction; ``loss [B]``; ``grad_norm [B]``, the norm of the plain LoRA gradient;
    ``sketch [B, k]`` of the unit vector along P^(1/2) g if one was asked for.
    """

    utility: Tensor
    loss: Tensor
    grad_norm: Tensor
    sketch: Tensor | None = None


def first_order_utilities(
    model: Any,
    pairs: Sequence[LoraPair],
    batch: dict[str, Tensor],
    directions: AnchorDirections,
    rule: UpdateRule,
    sketch: Sketch | None = None,
) -> FirstOrder:
    """Scores a batch of candidates: -<g_v, displacement_i> by ``raw``, a cosine in [-1, 1] by ``mean_cosine``.

    ``raw`` is first order in the anchors' loss but exact in the step, AdamW's non-linear one included. For SGD it
    is ``eta <g_v, g_i>``, in nats per token.

    Args:
        model: The proxy in evaluation mode.
        pairs: Its adapted layers.
        batch: Model inputs with labels, B samples.
        directions: From :func:`anchor_directions`.
        rule: The same update rule.
        sketch: Also sketch the preconditioned gradients, each of length one: inner products estimate their cosines.

    Returns:
        Utilities ``[B, K]``, losses, norms and sketches, on the model's device.

    Raises:
        RuntimeError: As :func:`per_sample_gradients` does.
    """
    cosine = directions.utility == "mean_cosine"
    dots: list[Tensor] = []
    norms: list[Tensor] = []
    scaled_norms, sketches = list[Tensor](), list[Tensor]()

    def consume(name: str, gradient: Tensor) -> None:
        norms.append(_norm(gradient))
        if cosine or sketch is not None:
            scaled = gradient * directions.root[name]
            scaled_norms.append(_norm(scaled))
            if sketch is not None:
                sketches.append(sketch.part(name, scaled))
        move = scaled if cosine else -rule.displacement(name, gradient)
        dots.append(_dot(move, directions.columns[name]))

    loss = per_sample_gradients(model, pairs, batch, consume)
    dot = torch.stack(dots).sum(0)
    sketch_Bk = None
    if scaled_norms:
        length_B1 = _joined(scaled_norms).clamp_min(_TINY)[:, None]
        dot = dot / length_B1 if cosine else dot
        sketch_Bk = torch.stack(sketches).sum(0) / length_B1 if sketches else None
    return FirstOrder(dot, loss, _joined(norms), sketch_Bk)


def _joined(norms: list[Tensor]) -> Tensor:
    """The norm of all parameters together, of each one's: ``[B]``."""
    return torch.linalg.vector_norm(torch.stack(norms), dim=0)
