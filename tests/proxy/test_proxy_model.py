"""The proxy: what is adapted, what is stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from ost_hf.errors import ModelError, RunDirectoryError
from ost_hf.models import ModelConfig, load_model, load_processing_class, reads_images
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import Proxy, build_proxy, language_layers, load_proxy, save_proxy


def test_lora_is_on_every_language_layer_and_nowhere_else(vlm_path: str) -> None:
    proxy = build_proxy(ProxyConfig(model=vlm_path))
    report = proxy.report()
    assert report["by_name"] == dict.fromkeys(
        ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"), 4
    )
    assert report["adapted_modules"] == 28
    assert report["trainable_parameters"] == sum(p.numel() for p in proxy.parameters.values()) == 38_912
    assert report["base_parameters"] == 464_064
    assert report["linear_layers_left_alone"] > 0
    assert not any("visual" in name for name in proxy.parameters)


def test_base_is_frozen_and_in_evaluation_mode(vlm_path: str) -> None:
    proxy = build_proxy(ProxyConfig(model=vlm_path))
    assert not proxy.model.training
    assert not any(parameter.requires_grad for parameter in proxy.model.parameters())


def test_text_model_is_adapted_too(text_path: str) -> None:
    proxy = build_proxy(ProxyConfig(model=text_path, lora_r=2))
    assert proxy.report()["adapted_modules"] == 14


def test_adapter_depends_on_the_seed_alone(vlm_path: str) -> None:
    weights = []
    for seed in (3, 3, 4):
        torch.manual_seed(len(weights))
        weights.append(
            torch.cat([p.flatten() for p in build_proxy(ProxyConfig(vlm_path, seed=seed)).parameters.values()])
        )
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_own_target_modules_are_taken(vlm_path: str) -> None:
    proxy = build_proxy(ProxyConfig(model=vlm_path, lora_target_modules=r".*language_model.*\.(q_proj|v_proj)"))
    assert proxy.report()["by_name"] == {"q_proj": 4, "v_proj": 4}


def test_target_modules_that_match_nothing_are_an_error(vlm_path: str) -> None:
    with pytest.raises(ModelError, match=r"no layer of .* matches lora_target_modules 'nothing'"):
        build_proxy(ProxyConfig(model=vlm_path, lora_target_modules="nothing"))


def test_model_without_adaptable_layers_is_an_error(text_path: str) -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(4, 4)
            self.head = nn.Linear(4, 4)

        def get_output_embeddings(self) -> nn.Module:
            return self.head

    with pytest.raises(ModelError, match="Bag has no linear layers"):
        language_layers(Bag())


def test_gpt2s_own_layers_are_refused_with_their_kind(tmp_path: Path, vlm_path: str) -> None:
    config = transformers.GPT2Config(vocab_size=400, n_embd=16, n_layer=1, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(vlm_path).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="GPT2LMHeadModel has no linear layers"):
        build_proxy(ProxyConfig(model=str(tmp_path)))


def test_stored_proxy_comes_back_with_its_moments(warm_proxy: Proxy, tmp_path: Path) -> None:
    save_proxy(warm_proxy, tmp_path)
    loaded = load_proxy(tmp_path)
    assert loaded.config == warm_proxy.config
    assert warm_proxy.adam is not None
    assert loaded.adam is not None
    assert loaded.adam.step == warm_proxy.adam.step == 20
    for name, parameter in warm_proxy.parameters.items():
        assert torch.equal(loaded.parameters[name], parameter)
        assert torch.equal(loaded.adam.exp_avg[name], warm_proxy.adam.exp_avg[name])
        assert torch.equal(loaded.adam.exp_avg_sq[name], warm_proxy.adam.exp_avg_sq[name])


def test_proxy_is_stored_without_pickle(warm_proxy: Proxy, tmp_path: Path) -> None:
    save_proxy(warm_proxy, tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".safetensors", ".json", ".md"}
    assert json.loads((tmp_path / "proxy.json").read_text())["report"]["warmup_steps"] == 20


def test_folder_without_a_proxy_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="run the score stage first"):
        load_proxy(tmp_path)


def test_models_load_with_the_class_of_their_configuration(vlm_path: str, text_path: str) -> None:
    assert type(load_model(ModelConfig(vlm_path))).__name__ == "Qwen3VLForConditionalGeneration"
    assert type(load_model(ModelConfig(text_path))).__name__ == "Qwen3ForCausalLM"
    assert reads_images(ModelConfig(vlm_path))
    assert type(load_processing_class(ModelConfig(vlm_path))).__name__ == "Qwen3VLProcessor"
    assert not hasattr(load_processing_class(ModelConfig(text_path)), "image_processor")


def test_other_models_are_refused(tmp_path: Path) -> None:
    transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="ViTConfig: neither a causal language model nor"):
        load_model(ModelConfig(str(tmp_path)))


def test_remote_code_is_off_unless_asked() -> None:
    assert ModelConfig("x").trust_remote_code is False
    assert ProxyConfig("x").trust_remote_code is False
