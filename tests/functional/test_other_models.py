"""Models that are not plain: experts, quantised layers, layers that run twice. Right numbers, or a reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from ost_hf.errors import ModelError
from ost_hf.functional.batched import BatchedExact
from ost_hf.functional.exact import exact_utilities, sample_gradient
from ost_hf.functional.forward import CentralDifference, anchor_direction
from ost_hf.functional.lora import weights_of, with_weights
from ost_hf.functional.reverse import anchor_directions, first_order_utilities, per_sample_gradients
from ost_hf.functional.step import UpdateRule
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import Proxy, adapt, check_gradients

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def text_batch(rows: int, seed: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 90, (rows, 10), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def mixture_of_experts(**more: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.Qwen3MoeConfig(
        **SHAPE, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2, decoder_sparse_step=1, **more
    )
    # The grouped kernel knows no float64.
    config._experts_implementation = "eager"
    return transformers.Qwen3MoeForCausalLM(config)


class Int8Linear(torch.nn.Linear):
    """Weights held in eight bits and expanded on use, as quantising libraries do."""

    def quantise(self) -> None:
        self.scale = self.weight.detach().abs().max() / 127
        self.register_buffer("held", (self.weight.detach() / self.scale).round().to(torch.int8))
        self.weight.data.fill_(torch.nan)  # whoever reads it will know

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.held.to(x.dtype) * self.scale.to(x.dtype), self.bias)


def quantised() -> Any:
    torch.manual_seed(0)
    model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SHAPE))
    for module in model.model.layers.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = Int8Linear
            module.quantise()
    return model


def adapted(build: Any) -> tuple[Any, list[Any]]:
    model, pairs = adapt(build().double(), ProxyConfig("unnamed"))
    generator = torch.Generator().manual_seed(1)
    for pair in pairs:
        pair.a.double()
        pair.b.double()
        pair.b.weight.normal_(std=0.05, generator=generator)
    return model, pairs


@pytest.mark.parametrize("build", [mixture_of_experts, quantised])
def test_every_estimator_is_right_on_experts_and_on_quantised_layers(build: Any) -> None:
    model, pairs = adapted(build)
    rule = UpdateRule("sgd", 1e-4)
    candidates, anchors = text_batch(4, seed=2), [text_batch(3, seed=3)]
    alone = [{key: value[i : i + 1] for key, value in candidates.items()} for i in range(4)]
    expected = torch.stack([u for u, _ in exact_utilities(model, weights_of(pairs), alone, anchors, rule)]).mean(1)
    exact = BatchedExact(model, pairs, anchors, rule, 90).utilities(candidates)[0].mean(1)
    # These models compute norms and routes in float32.
    torch.testing.assert_close(exact, expected, rtol=1e-3, atol=1e-7)
    directions = anchor_directions(model, pairs, anchors, rule, "raw")
    reverse = first_order_utilities(model, pairs, candidates, directions, rule).utility[:, 0]
    slopes = [
        sum(
            (g * directions.columns[name][0]).sum()
            for name, g in sample_gradient(model, weights_of(pairs), one)[1].items()
        )
        for one in alone
    ]
    torch.testing.assert_close(reverse, 1e-4 * torch.stack(slopes), rtol=1e-5, atol=1e-12)
    direction = anchor_direction(model, pairs, anchors, rule)
    central = CentralDifference(model, pairs, direction, 1e-3)(candidates)[0]
    torch.testing.assert_close(central, reverse, rtol=1e-2, atol=1e-9)


def test_fused_experts_are_left_alone_and_refused_when_named() -> None:
    model, pairs = adapted(mixture_of_experts)
    assert not [pair.name_a for pair in pairs if "experts" in pair.name_a]
    assert len(pairs) == 8
    report = Proxy(model, pairs, None, ProxyConfig("unnamed")).report()
    assert report["adapted_modules"] == 8
    with pytest.raises(ModelError, match=r"gate_up_proj and 1 more are experts fused in one parameter, not linear"):
        adapt(mixture_of_experts(), ProxyConfig("unnamed", lora_target_modules=r".*experts\.gate_up_proj"))


def test_dense_layers_beside_fused_experts_are_left_alone() -> None:
    _, pairs = adapt(mixture_of_experts(mlp_only_layers=[0]), ProxyConfig("unnamed"))
    assert {pair.name_a.split(".lora_A")[0].rsplit(".", 1)[-1] for pair in pairs} == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    }


def test_what_is_no_linear_layer_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="only linear layers can be adapted, this is a "):
        adapt(mixture_of_experts(), ProxyConfig("unnamed", lora_target_modules=r".*embed_tokens"))


# PEFT's, of patterns that it has made itself for fused experts.
@pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning")
def test_names_that_fused_experts_share_with_dense_layers_adapt_those_alone_or_nothing() -> None:
    config = ProxyConfig("unnamed", lora_target_modules=r".*mlp\.(gate_proj|up_proj|down_proj)")
    try:
        adapted_layers = [
            pair.layer.get_base_layer() for pair in adapt(mixture_of_experts(mlp_only_layers=[0]), config)[1]
        ]
        refusal = ""
    except ModelError as error:  # newer releases of PEFT wrap the experts under these names too
        adapted_layers, refusal = [], str(error)
    assert ("only linear layers can be adapted, this is a " in refusal) != (len(adapted_layers) == 3)
    assert all(isinstance(layer, torch.nn.Linear) for layer in adapted_layers)


class WithoutDerivative(Int8Linear):
    """As inference kernels of quantising libraries are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return super().forward(x)


def test_base_layer_without_a_derivative_is_refused() -> None:
    model, pairs = adapted(quantised)
    for pair in pairs:
        pair.layer.base_layer.__class__ = WithoutDerivative
    with pytest.raises(RuntimeError, match=r"the layer under .* \(WithoutDerivative\) has no derivative"):
        per_sample_gradients(model, pairs, text_batch(2, seed=6), lambda name, gradient: None)
    with pytest.raises(ModelError, match="unnamed cannot be scored as it is adapted: the layer under"):
        check_gradients(Proxy(model, pairs, None, ProxyConfig("unnamed")), text_batch(1, seed=6))


def test_adapted_head_is_refused() -> None:
    """It sees the supervised tokens of all rows in one line."""
    torch.manual_seed(0)
    base = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SHAPE))
    model, pairs = adapt(base, ProxyConfig("unnamed", lora_target_modules=r".*(lm_head|q_proj)"))
    with pytest.raises(RuntimeError, match=r"lm_head.* for a batch of 3; per-sample gradients need"):
        per_sample_gradients(model, pairs, text_batch(3, seed=7), lambda name, gradient: None)


def test_layers_that_add_in_place_are_no_obstacle() -> None:
    torch.manual_seed(0)
    config = transformers.FalconConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, new_decoder_architecture=False
    )
    model, pairs = adapt(transformers.FalconForCausalLM(config), ProxyConfig("unnamed"))
    for pair in pairs:
        torch.nn.init.normal_(pair.b.weight, std=0.05)
    found: dict[str, torch.Tensor] = {}
    per_sample_gradients(model, pairs, text_batch(2, seed=8), found.__setitem__)
    one = {key: value[:1] for key, value in text_batch(2, seed=8).items()}
    for name, gradient in sample_gradient(model, weights_of(pairs), one)[1].items():
        torch.testing.assert_close(found[name][0], gradient, rtol=1e-3, atol=1e-5)


def test_layer_that_mixes_rows_is_refused() -> None:
    """A linear layer in an expert sees the tokens routed to it, and not whose they are."""
    model, pairs = adapted(quantised)
    mlp = model.get_base_model().model.layers[0].mlp
    plain = type(mlp).forward
    mlp.forward = lambda x: plain(mlp, x.flatten(0, 1)).view(x.shape)
    batch = text_batch(2, seed=4)
    with pytest.raises(RuntimeError, match=r"per-sample gradients need \[batch, tokens, features\]: leave this layer"):
        per_sample_gradients(model, pairs, batch, lambda name, gradient: None)
    twice = {name: torch.stack([weight.detach()] * 2) for name, weight in weights_of(pairs).items()}
    with (
        with_weights(pairs, twice),
        pytest.raises(RuntimeError, match="2 candidates cannot be told apart"),
        torch.no_grad(),
    ):
        model(**batch)


def test_layer_that_runs_twice_is_refused() -> None:
    model, pairs = adapted(quantised)
    layers = model.get_base_model().model.layers
    layers[1].mlp = layers[0].mlp
    with pytest.raises(RuntimeError, match="adapted layers did not run exactly once"):
        per_sample_gradients(model, pairs, text_batch(2, seed=5), lambda name, gradient: None)
