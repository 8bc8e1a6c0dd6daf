"""Recording and replaying what adapters cannot change."""

from __future__ import annotations

import pytest
import torch
import transformers

from ost_hf.functional.frozen import anatomy_of, recording, replaying
from ost_hf.functional.lora import LoraPair, weights_of, with_weights
from ost_hf.functional.loss import per_sample_loss
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import build_proxy


def moved(case, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: weight.detach()[None] + 0.05 * torch.randn(1, *weight.shape, generator=generator, dtype=weight.dtype)
        for name, weight in weights_of(case.pairs).items()
    }


def test_replay_with_other_adapters_gives_the_loss_of_a_full_pass(case) -> None:
    anatomy = anatomy_of(case.model, case.pairs)
    weights = moved(case)
    with torch.no_grad():
        with with_weights(case.pairs, weights):
            expected = per_sample_loss(case.model, case.batch)
        with recording(anatomy) as recorded:
            unmoved = per_sample_loss(case.model, case.batch)
        with with_weights(case.pairs, weights), replaying(anatomy, recorded):
            replayed = per_sample_loss(case.model, case.batch)
    assert (expected - unmoved).abs().max() > 1e-3
    torch.testing.assert_close(replayed, expected, rtol=1e-12, atol=1e-12)


def test_text_models_are_replayed_from_the_first_adapted_layer(text_path: str) -> None:
    proxy = build_proxy(ProxyConfig(text_path, lora_target_modules=r".*layers\.1\..*_proj"))
    anatomy = anatomy_of(proxy.model, proxy.pairs)
    assert (len(anatomy.frozen_layers), anatomy.layers) == (1, 2)
    ids = torch.randint(5, 300, (3, 12))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    calls: list[int] = []
    below = proxy.model.get_base_model().model.layers[0].mlp
    with torch.inference_mode():
        with recording(anatomy) as recorded:
            expected = per_sample_loss(proxy.model, batch)
        handle = below.register_forward_pre_hook(lambda *_: calls.append(1))
        with replaying(anatomy, recorded):
            replayed = per_sample_loss(proxy.model, batch)
        handle.remove()
    assert torch.equal(replayed, expected)
    assert calls == []


def test_adapters_outside_the_layers_leave_nothing_frozen(case) -> None:
    visual = case.model.get_base_model().model.visual
    linear = next(module for module in visual.modules() if isinstance(module, torch.nn.Linear))
    pairs = [*case.pairs, LoraPair("v.a", "v.b", linear, linear, linear, 1.0)]
    anatomy = anatomy_of(case.model, pairs)
    assert anatomy.frozen_layers == ()
    # The vision tower is adapted: its features must be computed again.
    assert anatomy.body is anatomy.decoder


@pytest.mark.parametrize(
    "config",
    [
        transformers.LlamaConfig(),
        transformers.Gemma2Config(head_dim=8, final_logit_softcapping=3.0),
        transformers.Qwen2Config(),
        transformers.GraniteConfig(logits_scaling=4.0),
    ],
    ids=lambda config: config.model_type,
)
def test_other_architectures_replay_alike(config) -> None:
    small = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    config.update({**small, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    layer = model.get_decoder().layers[2].mlp.up_proj
    anatomy = anatomy_of(model, [LoraPair("a", "b", layer, layer, layer, 1.0)])
    assert (len(anatomy.frozen_layers), anatomy.layers) == (2, 3)
    ids = torch.randint(5, 90, (2, 9))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    with torch.inference_mode():
        with recording(anatomy) as recorded:
            expected = per_sample_loss(model, batch)
        with replaying(anatomy, recorded):
            assert torch.equal(per_sample_loss(model, batch), expected)
        reference = model(**batch).loss
    torch.testing.assert_close(expected.mean(), reference, rtol=1e-5, atol=1e-5)
