"""LoRA layers as the mathematics sees them, and a way to run a model with other adapter weights than its own.

An adapted layer computes ``y_t = W x_t + s B (A x_t)`` at token t, with the base weight W frozen.

Letters: C sets of adapter weights, R rows of the batch for each set, T tokens, r rank, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class LoraPair:
    """One adapted layer: its two factors, the names of their weights, and the layer that holds them.

    ``layer`` computes the sum of base and adapter; its ``base_layer`` may be of any kind, quantised or not.
    """

    name_a: str
    name_b: str
    a: nn.Linear
    b: nn.Linear
    layer: nn.Module
    scaling: float

    @property
    def base(self) -> Callable[[Tensor], Tensor]:
        """The frozen layer under the adapter."""
        return self.layer.base_layer  # type: ignore[return-value]


def weights_of(pairs: Sequence[LoraPair]) -> dict[str, Any]:
    """The adaptable parameters by name."""
    return {
        name: weight for pair in pairs for name, weight in ((pair.name_a, pair.a.weight), (pair.name_b, pair.b.weight))
    }


@contextmanager
def replaced_forward(replacements: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Lets modules compute something else for a while; hooks on them still run."""
    # A replacement may stand inside another one, or beside a hook that was put there in the same way.
    kept = {module: module.__dict__.get("forward") for module in replacements}
    try:
        for module, forward in replacements.items():
            module.forward = forward
        yield
    finally:
        for module, earlier in kept.items():
            if earlier is None:
                module.__dict__.pop("forward", None)
            else:
                module.forward = earlier


@contextmanager
def with_weights(pairs: Sequence[LoraPair], weights: Tensors) -> Iterator[None]:
    """Runs the model with other adapter weights; its own stay where they are.

    Args:
        pairs: The adapted layers.
        weights: By parameter name, ``[C, *shape]``. A batch of ``C * R`` rows, R for each set one after
            the other, shares the base layers' matrix products; each set's own product is a batched one.
    """
    forwards = {pair.layer: _adapted(pair, weights[pair.name_a], weights[pair.name_b]) for pair in pairs}
    with replaced_forward(forwards):
        yield


def _is_plain(pair: LoraPair, like: Tensor) -> bool:
    """Whether the base layer is nothing but its weight, in the adapter's own precision."""
    base = pair.layer.base_layer
    return type(base) is nn.Linear and base.weight.dtype == like.dtype and "forward" not in base.__dict__


def _merging_pays(pair: LoraPair, x: Tensor) -> bool:
    """Whether W + s B A costs less than the adapter's own products: I O against (I + O) for each token."""
    inputs, outputs = pair.a.in_features, pair.b.out_features
    return x.numel() // inputs * (inputs + outputs) > inputs * outputs


def _adapted(pair: LoraPair, a_CrI: Tensor, b_COr: Tensor) -> Callable[..., Tensor]:
    count = len(a_CrI)
    a_CIr, b_CrO = a_CrI.mT, (b_COr * pair.scaling).mT
    base_layer: Any = pair.layer.base_layer
    may_merge = count == 1 and _is_plain(pair, a_CrI)

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if may_merge and _merging_pays(pair, x):
            weight = torch.addmm(base_layer.weight, b_CrO[0].mT, a_CrI[0])
            return linear(x, weight, base_layer.bias)
        if count > 1 and (x.dim() != 3 or len(x) % count):
            raise RuntimeError(
                f"{pair.name_a} gets input of shape {tuple(x.shape)}, in which {count} candidates cannot be told "
                "apart: leave this layer out of lora_target_modules"
            )
        base = pair.base(x)
        x_CNI = x.to(a_CIr.dtype).reshape(count, -1, x.shape[-1])
        y_CNO = base.to(a_CIr.dtype).reshape(count, -1, base.shape[-1])
        if count == 1:
            y = torch.addmm(y_CNO[0], x_CNI[0] @ a_CIr[0], b_CrO[0])
        else:
            y = torch.baddbmm(y_CNO, x_CNI @ a_CIr, b_CrO)
        return y.view(base.shape).to(base.dtype)

    return forward
