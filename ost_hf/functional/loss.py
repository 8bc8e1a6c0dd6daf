"""Per-sample loss: mean cross-entropy over the supervised tokens of each sample.

Letters: B samples, T tokens, N supervised tokens of the batch, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ost_hf.functional.lora import replaced_forward

IGNORE_INDEX = -100

# Logits that exist at a time: 256 MB in float32. A vocabulary of 150,000 gets 447 tokens at a time.
CHUNK_ELEMENTS = 2**26

# Whether a model hands on what its output embedding returns, found out on first use.
_hands_on_logits: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def per_sample_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """``l(z; theta)`` of every sample in a batch.

    Logits are computed at supervised positions only, those whose next token is an answer token, and a few
    hundred at a time: a large vocabulary costs nothing for prompts and padding, and little memory.

    Args:
        model: A causal language or image-text-to-text model with ``get_output_embeddings``.
        batch: Model inputs with ``labels`` ``[B, T]``; -100 marks tokens without a label.

    Returns:
        ``[B]`` in nats per token, float32 (float64 for a float64 model); NaN for a sample without labels.
    """
    return sample_means(token_losses(model, batch), batch["labels"])


def token_losses(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Cross-entropy of every supervised token of a batch, as :func:`per_sample_loss` takes it.

    Returns:
        ``[N]`` in nats, sample after sample.
    """
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    next_token_BT = batch["labels"][:, 1:]
    supervised_BT = next_token_BT != IGNORE_INDEX
    target_N = next_token_BT[supervised_BT]
    loss_N = _deferred_losses(model, inputs, supervised_BT, target_N)
    if loss_N is None:
        with _gathered_before(model.get_output_embeddings(), supervised_BT):
            loss_N = _cross_entropy(model(**inputs, use_cache=False).logits[0], target_N)
    return loss_N


def sample_means(value_N: Tensor, labels_BT: Tensor) -> Tensor:
    """The mean over each sample's supervised tokens.

    Args:
        value_N: A number of every supervised token, sample after sample.
        labels_BT: -100 marks tokens without a label.

    Returns:
        ``[B]``; NaN for a sample without labels.
    """
    supervised_BT = labels_BT[:, 1:] != IGNORE_INDEX
    sample_N = supervised_BT.nonzero()[:, 0]
    sum_B = torch.zeros(len(supervised_BT), dtype=value_N.dtype, device=value_N.device).index_add(0, sample_N, value_N)
    return sum_B / supervised_BT.sum(1)


def weighted_loss(logits_BTV: Tensor, labels_BT: Tensor, weight_B: Tensor, count: Tensor | float) -> Tensor:
    """``sum_i w_i sum_t l_it / count``: summed cross-entropies, each sample's times its weight.

    Args:
        logits_BTV: Those of a causal model.
        labels_BT: -100 marks tokens without a label.
        weight_B: One weight for each sample.
        count: What the sum is divided by; without a supervised token 0 / 0 is taken for 0.

    Returns:
        A scalar in nats, float32 (float64 for a float64 model).
    """
    next_token_BT = labels_BT[:, 1:]
    supervised_BT = next_token_BT != IGNORE_INDEX
    loss_N = _cross_entropy(logits_BTV[:, :-1][supervised_BT], next_token_BT[supervised_BT])
    weight_N = weight_B[supervised_BT.nonzero()[:, 0]].to(loss_N.dtype)
    return (weight_N * loss_N).sum() / torch.as_tensor(count, device=loss_N.device).clamp_min(1)


def _deferred_losses(model: Any, inputs: dict[str, Tensor], supervised_BT: Tensor, target_N: Tensor) -> Tensor | None:
    """Losses by a head that is put off until the rest of the model has run, then applied in pieces.

    Returns:
        ``[N]``, or ``None`` for a model whose head does not allow it: one that is adapted or trained, or
        whose logits are changed after the head (scaled, soft-capped).
    """
    head = model.get_output_embeddings()
    adapted = any(hasattr(module, "base_layer") for module in head.modules())
    if adapted or any(p.requires_grad for p in head.parameters()) or not _hands_on_logits.get(head, True):
        return None
    given: list[Tensor] = []
    fingerprint: list[Tensor] = []

    def hand_on(hidden_1ND: Tensor) -> Tensor:
        given.append(hidden_1ND)
        fingerprint.append(hidden_1ND[:, :1].detach().clone())
        return hidden_1ND

    with _gathered_before(head, supervised_BT, hand_on):
        returned = model(**inputs, use_cache=False).logits
    if head not in _hands_on_logits:
        _hands_on_logits[head] = returned is given[0] and torch.equal(returned[:, :1].detach(), fingerprint[0])
    if not _hands_on_logits[head]:
        return None
    hidden_ND = given[0][0]
    if torch.is_grad_enabled() and hidden_ND.requires_grad:
        return _ChunkedLoss.apply(hidden_ND, target_N, head)
    size = _chunk_size(head)
    pieces = zip(hidden_ND.split(size), target_N.split(size), strict=True)
    return torch.cat([_cross_entropy(head(hidden), target) for hidden, target in pieces])


class _ChunkedLoss(torch.autograd.Function):
    """Token losses of a frozen head; the gradient is taken with each piece, so no logits outlive it."""

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, target_N: Tensor, head: nn.Module) -> Tensor:
        losses, gradients = [], []
        size = _chunk_size(head)
        for hidden, target in zip(hidden_ND.split(size), target_N.split(size), strict=True):
            with torch.enable_grad():
                leaf = hidden.detach().requires_grad_(True)
                loss = _cross_entropy(head(leaf), target)
                # Nothing but the leaf wants a gradient: the head is frozen.
                loss.sum().backward()
            assert leaf.grad is not None
            gradients.append(leaf.grad)
            losses.append(loss.detach())
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_ND,) = ctx.saved_tensors
        return gradient_ND * grads[0][:, None].to(gradient_ND.dtype), None, None


def _cross_entropy(logits_NV: Tensor, target_N: Tensor) -> Tensor:
    logits_NV = logits_NV if logits_NV.dtype == torch.float64 else logits_NV.float()
    return cross_entropy(logits_NV, target_N, reduction="none")


def _chunk_size(head: Any) -> int:
    return max(1, CHUNK_ELEMENTS // head.weight.shape[0])


@contextmanager
def _gathered_before(head: Any, supervised_BT: Tensor, forward: Any = None) -> Iterator[None]:
    """Gathers ``[B, T, D]`` into ``[1, N, D]`` on the way into the head; ``forward`` takes the head's place."""

    def gather(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden_BTD = args[0]
        return (hidden_BTD[:, :-1][supervised_BT][None], *args[1:])

    handle = head.register_forward_pre_hook(gather)
    try:
        with replaced_forward({head: forward} if forward is not None else {}):
            yield
    finally:
        handle.remove()
