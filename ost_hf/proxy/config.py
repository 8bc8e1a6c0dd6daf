"""Which proxy, how it is adapted, and how it is warmed up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ost_hf.errors import require_integer, require_range
from ost_hf.models import ModelConfig


@dataclass(frozen=True)
class ProxyConfig(ModelConfig):
    """A small model with LoRA on its language layers."""

    setting: ClassVar[str] = "proxy.model"

    lora_r: int = field(default=8, metadata={"help": "rank; 8 ranks as well as more at a fraction of the cost"})
    lora_alpha: float = field(default=16, metadata={"help": "scaling is alpha / r"})
    lora_target_modules: str | None = field(
        default=None,
        metadata={"help": "regular expression on module names; by default every linear layer of the language model"},
    )
    warmup_fraction: float = field(
        default=0.05, metadata={"help": "share of the pool to warm up on (the paper's best); 0 leaves the proxy cold"}
    )
    warmup_min_steps: int = field(
        default=30, metadata={"help": "repeat the warm-up rows until so many steps are done: a small pool has few rows"}
    )
    warmup_batch_size: int = field(default=32, metadata={"help": "samples per warm-up step, over all processes"})
    warmup_learning_rate: float = field(
        default=2e-4, metadata={"common": True, "help": "AdamW's learning rate in the warm-up"}
    )
    seed: int = field(default=0, metadata={"help": "seed of the adapter's initialisation and of the warm-up rows"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("proxy.lora_r", self.lora_r, at_least=1)
        require_range("proxy.lora_alpha", self.lora_alpha, above=0)
        require_range("proxy.warmup_fraction", self.warmup_fraction, at_least=0, at_most=1)
        require_integer("proxy.warmup_min_steps", self.warmup_min_steps, at_least=1)
        require_integer("proxy.warmup_batch_size", self.warmup_batch_size, at_least=1)
        require_range("proxy.warmup_learning_rate", self.warmup_learning_rate, above=0)
