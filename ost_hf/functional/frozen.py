"""What an adapter cannot change is run once: the vision tower, the embeddings, the layers below the first adapted one.

``recording`` keeps, of one pass over a batch, what went into the decoder and what came out of its last frozen
layer. ``replaying`` lets the model take it from there: the same batch, other adapters. Model code stays the
model's own: head, final norm, masks and the order of layers are whatever its class does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ost_hf.functional.lora import LoraPair, replaced_forward


@dataclass(frozen=True)
class Anatomy:
    """Where in a model adapters begin.

    ``body`` is everything but the head, ``decoder`` the language model in it (the same module in a text
    model), ``frozen_layers`` its layers below the first adapted one, ``layers`` how many it has.
    """

    body: nn.Module
    decoder: nn.Module
    frozen_layers: tuple[nn.Module, ...]
    layers: int


@dataclass
class Recording:
    """One batch, as far as adapters cannot change it.

    ``args`` and ``kwargs`` went into the decoder; ``boundary`` came out of the last frozen layer.
    ``body_output`` is the body's output without its hidden states, or ``None`` if the body makes more of the
    decoder's output than passing it on: then only the frozen layers are skipped, and the front runs again.
    """

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    boundary: Any = None
    body_output: Any = None


def anatomy_of(model: Any, pairs: Sequence[LoraPair]) -> Anatomy:
    """Finds the decoder, and in its list of layers the first that holds an adapter.

    Args:
        model: A transformers model, in PEFT's wrapper or not.
        pairs: The adapted layers.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder = base.get_decoder() if hasattr(base, "get_decoder") else base
    body = getattr(base, "base_model", decoder)
    adapted = {pair.layer for pair in pairs}
    for layers in (module for module in decoder.children() if isinstance(module, nn.ModuleList)):
        holding = [i for i, layer in enumerate(layers) if any(module in adapted for module in layer.modules())]
        if holding and sum(len(adapted & set(layers[i].modules())) for i in holding) == len(adapted):
            return Anatomy(body, decoder, tuple(layers[: holding[0]]), len(layers))
    # Adapters in several places, or outside the layers: nothing below them can be told apart.
    adapted_in_decoder = adapted <= set(decoder.modules())
    return Anatomy(body if adapted_in_decoder else decoder, decoder, (), 0)


@contextmanager
def recording(anatomy: Anatomy) -> Iterator[Recording]:
    """Keeps what replaying needs of the one forward pass made inside."""
    kept = Recording()
    decoder_hidden: list[Any] = []

    def keep_call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kept.args, kept.kwargs = args, dict(kwargs)

    def keep_hidden(module: nn.Module, args: Any, output: Any) -> None:
        decoder_hidden.append(getattr(output, "last_hidden_state", None))

    def keep_body(module: nn.Module, args: Any, output: Any) -> None:
        hidden = getattr(output, "last_hidden_state", None)
        if hidden is not None and hidden is decoder_hidden[-1]:
            kept.body_output = copy.copy(output)
            kept.body_output.last_hidden_state = hidden.new_empty(0)

    def keep_boundary(module: nn.Module, args: Any, output: Any) -> None:
        kept.boundary = output

    with ExitStack() as hooks:
        if anatomy.body is not anatomy.decoder:
            hooks.callback(anatomy.decoder.register_forward_pre_hook(keep_call, with_kwargs=True).remove)
            hooks.callback(anatomy.decoder.register_forward_hook(keep_hidden).remove)
            hooks.callback(anatomy.body.register_forward_hook(keep_body).remove)
        if anatomy.frozen_layers:
            # Before other hooks on the layer: they will run again on what it answers.
            hooks.callback(anatomy.frozen_layers[-1].register_forward_hook(keep_boundary, prepend=True).remove)
        yield kept


@contextmanager
def replaying(anatomy: Anatomy, recorded: Recording) -> Iterator[None]:
    """Forward passes made inside start where the recorded one met its first adapter."""
    replacements: dict[nn.Module, Callable[..., Any]] = {}
    # Every frozen layer answers with the last one's output; only the last one's answer is used. What the
    # decoder adds between two layers (Qwen3-VL's visual features) it adds again to the same hidden states.
    for layer in anatomy.frozen_layers:
        replacements[layer] = lambda *args, **kwargs: recorded.boundary
    if recorded.body_output is not None:

        def body_forward(*args: Any, **kwargs: Any) -> Any:
            output = copy.copy(recorded.body_output)
            output.last_hidden_state = anatomy.decoder(*recorded.args, **recorded.kwargs).last_hidden_state
            return output

        replacements[anatomy.body] = body_forward
    with replaced_forward(replacements):
        yield
