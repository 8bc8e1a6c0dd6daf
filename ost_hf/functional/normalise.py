"""Normalisations of the one-step utility: what it is divided by, so that large gradients do not win by size.

With Delta_i the first-order drop of the anchors' loss, l_i the candidate's loss, g_i its gradient and T_i its
supervised tokens:

* ``raw``                Delta_i             nats per token (the paper's)
* ``raw_per_sample``     T_i Delta_i         for the sample's tokens together
* ``per_gradient_norm``  Delta_i / |g_i|     per length of the candidate's gradient
* ``relative``           Delta_i / l_i       per nat of the candidate's own loss
* ``mean_cosine``        mean_v cos(P^(1/2) g_v, P^(1/2) g_i)   formed in :mod:`ost_hf.functional.reverse`

``mean_cosine`` is the same whether l_i is a mean or a sum over tokens: length cancels. So are ``per_gradient_norm`` and
``relative`` where the step is linear in the gradient (SGD, ``forward``), and ``raw_per_sample`` is then the step on the
sum. AdamW's displacement is not linear: there they are the utilities of the mean's step, scaled.

Letters: B candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Utilities that are a raw one over something; a mean cosine needs gradients of another form.
DIVIDED = ("raw", "raw_per_sample", "per_gradient_norm", "relative")


def divisor(utility: str, loss: Tensor, tokens: Tensor, grad_norm: Tensor | None = None) -> Tensor:
    """What a raw utility is divided by.

    Args:
        utility: One of ``DIVIDED``.
        loss: ``[B]``, nats per token.
        tokens: ``[B]``, supervised tokens.
        grad_norm: ``[B]``; only ``per_gradient_norm`` needs it.

    Returns:
        ``[B]``, positive. A candidate without loss or without gradient moves nothing: its utility is zero, and
        stays so over the smallest number.

    Raises:
        ValueError: For an unknown name, or ``per_gradient_norm`` without norms.
    """
    if utility not in DIVIDED:
        raise ValueError(f"utility must be one of {', '.join(DIVIDED)}, got {utility!r}")
    if utility == "raw":
        return torch.ones_like(loss)
    if utility == "raw_per_sample":
        return 1 / tokens.to(loss)
    if utility == "relative":
        return loss.clamp_min(torch.finfo(loss.dtype).tiny)
    if grad_norm is None:
        raise ValueError("per_gradient_norm needs the candidates' gradient norms")
    return grad_norm.clamp_min(torch.finfo(grad_norm.dtype).tiny)
