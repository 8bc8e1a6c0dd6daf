"""The proxy: a base model with LoRA, what exactly was adapted, and how it is stored.

On disk it is PEFT's adapter folder plus ``optimizer.safetensors`` (the moments of the warm-up) and
``proxy.json`` (its configuration and the module report).
"""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from safetensors.torch import save_file
from torch import nn

from ost_hf.errors import ModelError, RunDirectoryError
from ost_hf.files import write_json
from ost_hf.functional.lora import LoraPair, weights_of
from ost_hf.functional.reverse import per_sample_gradients
from ost_hf.functional.step import AdamState
from ost_hf.models import load_model, load_processing_class, load_tensors
from ost_hf.parallel import outside_deepspeed, state
from ost_hf.proxy.config import ProxyConfig

_ADAPTER = "default"

# PEFT takes layers of these names for the experts' wherever they stand, once a model's experts are fused in one
# parameter; and what a shared expert sees has lost track of the rows.
_EXPERTS_NAMES = {"gate_proj", "up_proj", "down_proj", "gate_up_proj", "w1", "w2", "w3", "shared_expert_gate"}


@dataclass
class Proxy:
    """A model ready to be asked: in evaluation mode, base frozen, on this process's device."""

    model: Any
    pairs: list[LoraPair]
    processing_class: Any
    config: ProxyConfig
    adam: AdamState | None = None

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The adaptable parameters by name."""
        return weights_of(self.pairs)

    def report(self) -> dict[str, Any]:
        """Which modules were adapted, for people: counts by layer name, parameters, what was left alone."""
        modules = Counter(pair.name_a.split(".lora_A")[0].rsplit(".", 1)[-1] for pair in self.pairs)
        linear = sum(isinstance(module, nn.Linear) for module in self.model.get_base_model().modules())
        # PEFT keeps each adapted layer's own linear and adds two factors.
        return {
            "adapted_modules": len(self.pairs),
            "by_name": dict(sorted(modules.items())),
            "trainable_parameters": sum(parameter.numel() for parameter in self.parameters.values()),
            "linear_layers_left_alone": linear - 3 * len(self.pairs),
            "base_parameters": sum(p.numel() for n, p in self.model.named_parameters() if ".lora_" not in n),
            "warmup_steps": self.adam.step if self.adam else 0,
        }


def build_proxy(config: ProxyConfig) -> Proxy:
    """Loads the base model and puts a fresh LoRA on its language layers.

    Raises:
        ModelError: If no layer can be adapted.
    """
    with outside_deepspeed():
        base = load_model(config)
    return Proxy(*adapt(base, config), load_processing_class(config), config)


def adapt(base: Any, config: ProxyConfig) -> tuple[Any, list[LoraPair]]:
    """Puts a fresh LoRA on a model's language layers.

    Args:
        base: A transformers model; it is changed in place.
        config: Rank, scaling, layers and seed of the adapter.

    Returns:
        The model on this process's device, frozen and in evaluation mode, and its adapted layers.

    Raises:
        ModelError: If no layer can be adapted.
    """
    target = config.lora_target_modules or language_layers(base)
    lora = peft.LoraConfig(r=config.lora_r, lora_alpha=config.lora_alpha, lora_dropout=0.0, target_modules=target)
    with torch.random.fork_rng(devices=[]), _quiet_peft():
        torch.manual_seed(config.seed)
        try:
            model = peft.get_peft_model(base, lora, adapter_name=_ADAPTER)
        except ValueError as error:  # PEFT's "target modules not found"
            reason = _why_unmatched(base, target) or str(error)
            raise ModelError(f"no layer of {config.model} matches lora_target_modules {target!r}: {reason}") from error
    return _finish(model)


def _why_unmatched(base: Any, target: str) -> str | None:
    fused = [name for name, p in base.named_parameters() if p.dim() == 3 and re.fullmatch(target, name)]
    if not fused:
        return None
    return (
        f"{fused[0]} and {len(fused) - 1} more are experts fused in one parameter, not linear layers; their gradients "
        "per sample cannot be had. Name other layers, or none for every linear layer of the language model"
    )


def load_proxy(folder: str | Path) -> Proxy:
    """Loads a stored proxy.

    Raises:
        RunDirectoryError: If there is none in ``folder``.
    """
    folder = Path(folder)
    if not (folder / "proxy.json").exists():
        raise RunDirectoryError(f"no proxy in {folder}: run the score stage first")
    config = ProxyConfig(**json.loads((folder / "proxy.json").read_text())["config"])
    with outside_deepspeed(), _quiet_peft():
        base = load_model(config)
        model = peft.PeftModel.from_pretrained(base, str(folder), adapter_name=_ADAPTER)
    proxy = Proxy(*_finish(model), load_processing_class(config), config)
    if (folder / "optimizer.safetensors").exists():
        proxy.adam = _load_moments(folder / "optimizer.safetensors", proxy)
    return proxy


def read_origin(folder: str | Path) -> dict[str, Any] | None:
    """What a stored proxy was warmed up on; ``None`` if that was not said when it was stored."""
    return json.loads((Path(folder) / "proxy.json").read_text()).get("origin")


def save_proxy(proxy: Proxy, folder: str | Path, origin: dict[str, Any] | None = None) -> None:
    """Stores adapter, optimizer moments and report; safetensors and JSON only.

    ``proxy.json`` is written last: a folder that has it is complete.

    Args:
        proxy: The proxy.
        folder: Where to.
        origin: What it was warmed up on, for whoever must know whether it may be used again.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The embeddings are frozen; "auto" would ask the Hub whether they were resized.
    proxy.model.save_pretrained(folder, save_embedding_layers=False)
    if proxy.adam is not None:
        tensors = {f"exp_avg.{name}": value.contiguous() for name, value in proxy.adam.exp_avg.items()}
        tensors |= {f"exp_avg_sq.{name}": value.contiguous() for name, value in proxy.adam.exp_avg_sq.items()}
        tensors["step"] = torch.tensor(proxy.adam.step)
        save_file(tensors, folder / "optimizer.safetensors")
    described = {"config": asdict(proxy.config), "origin": origin, "report": proxy.report()}
    write_json(folder / "proxy.json", described)


def check_gradients(proxy: Proxy, sample: dict[str, torch.Tensor]) -> None:
    """Asks for one sample's gradients, before a warm-up that would be in vain without them.

    Args:
        proxy: The proxy.
        sample: Model inputs of one row.

    Raises:
        ModelError: If an adapted layer cannot give gradients per sample: it mixes rows, runs twice, or has no
            derivative.
    """
    try:
        per_sample_gradients(proxy.model, proxy.pairs, sample, lambda name, gradient: None)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ModelError(f"{proxy.config.model} cannot be scored as it is adapted: {error}") from error


def language_layers(model: Any) -> str:
    """A regular expression for every linear layer of the language model, and of nothing else.

    In a mixture of experts whose experts are fused in one parameter, dense and shared experts' layers stay out too.
    The vision tower, the projector and the output head stay out: PEFT's ``all-linear`` would adapt the
    vision layers too, and a bare layer name such as ``gate_proj`` can occur in both.

    Raises:
        ModelError: If there is no linear layer to adapt.
    """
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    head = model.get_output_embeddings()
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in decoder.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    if any(parameter.dim() == 3 for name, parameter in decoder.named_parameters() if "experts" in name):
        names -= _EXPERTS_NAMES
    if not names:
        raise ModelError(
            f"{type(model).__name__} has no linear layers in its language model that LoRA could adapt; "
            "name layers in lora_target_modules or choose another proxy"
        )
    start = re.escape(prefix) + r"\." if prefix else ""
    return rf"{start}(?:.*\.)?(?:{'|'.join(re.escape(name) for name in sorted(names))})"


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """PEFT reads a property that transformers has renamed; its user can do nothing about the warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def _finish(model: Any) -> tuple[Any, list[LoraPair]]:
    model = model.to(state().device).eval()
    pairs = []
    for name, module in model.named_modules():
        if not isinstance(module, LoraLayer):
            continue
        a, b = (dict(factors.items()).get(_ADAPTER) for factors in (module.lora_A, module.lora_B))
        if isinstance(module, ParamWrapper) or not (isinstance(a, nn.Linear) and isinstance(b, nn.Linear)):
            raise ModelError(
                f"{name}: only linear layers can be adapted, this is a {type(module.get_base_layer()).__name__} "
                "(experts fused in one parameter, or an embedding); name other layers in proxy.lora_target_modules"
            )
        pairs.append(LoraPair(f"{name}.lora_A.weight", f"{name}.lora_B.weight", a, b, module, module.scaling[_ADAPTER]))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model, pairs


def _load_moments(path: Path, proxy: Proxy) -> AdamState:
    tensors = load_tensors(path)
    moments: dict[str, dict[str, torch.Tensor]] = {"exp_avg": {}, "exp_avg_sq": {}}
    for key, value in tensors.items():
        kind, _, name = key.partition(".")
        if kind in moments:
            moments[kind][name] = value
    if set(moments["exp_avg"]) != set(proxy.parameters):
        raise RunDirectoryError(f"{path} holds the moments of another adapter; remove the folder and score again")
    return AdamState(moments["exp_avg"], moments["exp_avg_sq"], int(tensors["step"]))
