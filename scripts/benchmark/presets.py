"""What is measured: a model with LoRA, candidates and anchors, for each preset."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from torch import Tensor

from benchmark import PRESET_NAMES
from ost_hf.data.batching import cut_batches
from ost_hf.data.collator import Collator
from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import Encoded
from ost_hf.data.rows import Rows
from ost_hf.functional.lora import weights_of
from ost_hf.functional.step import AdamState
from ost_hf.parallel import state
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import Proxy, adapt, build_proxy
from ost_hf.proxy.warmup import warm_up

ROOT = Path(__file__).parents[2]
TINY_VLM = str(ROOT / "ost_hf" / "checkpoints" / "tiny_qwen3_vl")

Row = dict[str, Tensor]


@dataclass(frozen=True)
class Sizes:
    """How much of each is measured.

    ``anchors`` for the yardstick and all estimators, ``many_anchors`` for the growth with their number;
    ``exact_candidates`` step in each round; ``ranked`` candidates are compared by rank, against
    ``ranked_anchors`` anchors.
    """

    candidates: int
    anchors: int
    many_anchors: int
    exact_candidates: int
    ranked: int
    ranked_anchors: int
    batch_tokens: int


# A few rows and one round: does it run?
SMOKE = Sizes(8, 6, 12, 2, 8, 6, 512)


@dataclass(frozen=True)
class Case:
    """A proxy with rows for it."""

    proxy: Proxy
    candidates: list[Row]
    anchors: list[Row]
    collate: Callable[[list[Row]], Row]

    def batches(self, rows: list[Row], max_tokens: int) -> list[Row]:
        """Rows of like length in batches of at most so many padded tokens, on the device."""
        numbered = [Encoded(str(number), number, features=row) for number, row in enumerate(rows)]
        return [self.on_device([rows[one.row] for one in batch]) for batch in cut_batches(numbered, max_tokens)]

    def on_device(self, rows: list[Row]) -> Row:
        """One batch."""
        return {key: value.to(state().device) for key, value in self.collate(rows).items()}


@dataclass(frozen=True)
class Preset:
    """``build(layers)`` makes the case with adapters on those layers only, or on all.

    ``half_precision``: also compare bfloat16 with float32, which takes long on a CPU without such arithmetic.
    """

    description: str
    sizes: Sizes
    layers: int
    build: Callable[[Sizes, tuple[int, ...] | None], Case]
    smoke: Sizes
    trained: bool = True
    half_precision: bool = True

    def last_quarter(self, sizes: Sizes) -> tuple[int, ...]:
        """The numbers of the last quarter of the layers."""
        layers = _SMOKE_LAYERS if sizes is SMOKE and not self.trained else self.layers
        return tuple(range(layers - max(1, round(layers / 4)), layers))


def layer_pattern(layers: tuple[int, ...] | None) -> str | None:
    """A regular expression for the linear layers of some decoder layers."""
    if layers is None:
        return None
    return rf"(?!.*visual).*\.layers\.(?:{'|'.join(map(str, layers))})\..*_proj"


def tiny_qwen3_vl(sizes: Sizes, layers: tuple[int, ...] | None) -> Case:
    """The tiny Qwen3-VL of this repository, warmed up on handwritten arithmetic."""
    sys.path.insert(0, str(ROOT / "recipes" / "handwritten_arithmetic"))
    import task

    processor = transformers.AutoProcessor.from_pretrained(TINY_VLM)
    pool = _encoded(task.as_dataset(task.pool_rows(max(600, sizes.candidates), seed=41)), processor)
    anchors = _encoded(task.as_dataset(task.clean_rows(sizes.many_anchors, "anchors", seed=42)), processor)
    warmup_batch_size = 8 if sizes is SMOKE else ProxyConfig.warmup_batch_size
    config = ProxyConfig(
        TINY_VLM,
        lora_target_modules=layer_pattern(layers),
        dtype="float32",
        warmup_batch_size=warmup_batch_size,
    )
    proxy = build_proxy(config)
    warm_up(proxy, pool, exclude=set())
    return _case(proxy, pool, anchors, sizes)


def smollm2(sizes: Sizes, layers: tuple[int, ...] | None) -> Case:
    """SmolLM2-135M-Instruct, a pretrained model that comes as a package, on worded sums."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from make_smollm2 import make_smollm2

    folder = make_smollm2(ROOT / "runs" / "benchmark" / "smollm2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pool = _encoded(datasets.Dataset.from_list(worded_sums(max(32, sizes.candidates), seed=51)), tokenizer)
    anchors = _encoded(datasets.Dataset.from_list(worded_sums(sizes.many_anchors, seed=52)), tokenizer)
    config = ProxyConfig(
        str(folder),
        dtype="float32",
        lora_target_modules=layer_pattern(layers),
        warmup_fraction=1.0,
        warmup_min_steps=4,
        warmup_batch_size=8,
    )
    proxy = build_proxy(config)
    warm_up(proxy, pool, exclude=set(range(32, len(pool))))
    return _case(proxy, pool, anchors, sizes)


def worded_sums(count: int, seed: int) -> list[dict[str, str]]:
    """Sums in words with worked answers, 130 to 200 tokens each."""
    generator = random.Random(seed)
    rows = []
    for _ in range(count):
        a, b, k = generator.randint(10, 99), generator.randint(10, 99), generator.randint(3, 8)
        question = (
            f"A shop sells {a} boxes of pencils on Monday and {b} boxes on Tuesday. Each box holds {k} pencils. "
            "How many pencils were sold in the two days?"
        )
        answer = (
            f"On Monday {a} boxes were sold and on Tuesday {b} boxes, so together {a} + {b} = {a + b} boxes. Each box "
            f"holds {k} pencils, so {a + b} * {k} = {(a + b) * k} pencils. The answer is {(a + b) * k}."
        )
        if generator.random() < 0.5:
            answer += f" Check: {a} * {k} = {a * k} and {b} * {k} = {b * k}, and {a * k} + {b * k} = {(a + b) * k}."
        rows.append({"question": question, "answer": answer})
    return rows


def qwen3_06b(sizes: Sizes, layers: tuple[int, ...] | None) -> Case:
    """Qwen3-0.6B's shape with random weights; random tokens."""
    shape = {**_TEXT_SHAPE, "hidden_size": 1024, "intermediate_size": 3072} | _shrink(sizes, _SMALL_TEXT)
    config = transformers.Qwen3Config(**shape, tie_word_embeddings=True)
    return _random_case(config, sizes, layers, images=False)


def qwen3_vl_2b(sizes: Sizes, layers: tuple[int, ...] | None) -> Case:
    """Qwen3-VL-2B's shape with random weights; random tokens of which 256 are an image's."""
    text = {**_TEXT_SHAPE, "hidden_size": 2048, "intermediate_size": 6144} | _shrink(sizes, _SMALL_TEXT)
    sections = [4, 2, 2] if text["head_dim"] == 16 else [24, 20, 20]
    rope = {"rope_type": "default", "rope_theta": 5_000_000, "mrope_section": sections, "mrope_interleaved": True}
    vision = {"depth": 24, "hidden_size": 1024, "num_heads": 16, "intermediate_size": 4096}
    vision |= {"deepstack_visual_indexes": [5, 11, 17]} | _shrink(sizes, _SMALL_VISION)
    config = transformers.Qwen3VLConfig(
        text_config={**text, "rope_parameters": rope},
        vision_config={**vision, "out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=True,
        image_token_id=text["vocab_size"] - 1,
    )
    return _random_case(config, sizes, layers, images=True)


_TEXT_SHAPE = {
    "vocab_size": 151936,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
_SMOKE_LAYERS = 4
# A smoke run asks whether the code runs, on any machine.
_SMALL_TEXT = {
    "vocab_size": 2048,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": _SMOKE_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
_SMALL_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "num_heads": 2,
    "intermediate_size": 64,
    "deepstack_visual_indexes": [0],
}


def _shrink(sizes: Sizes, small: dict[str, Any]) -> dict[str, Any]:
    return small if sizes is SMOKE else {}


def _random_case(config: Any, sizes: Sizes, layers: tuple[int, ...] | None, images: bool) -> Case:
    if sizes is not SMOKE and not torch.accelerator.is_available():
        raise SystemExit("this preset is meant for a GPU (on a CPU one forward pass takes minutes); try --smoke")
    torch.manual_seed(0)
    auto = transformers.AutoModelForImageTextToText if images else transformers.AutoModelForCausalLM
    with state().device:
        # On a CPU bfloat16 can be slower than float32 by a factor of ten.
        base = auto.from_config(config, dtype=torch.float32 if sizes is SMOKE else torch.bfloat16)
    settings = ProxyConfig(config.model_type, lora_target_modules=layer_pattern(layers))
    model, pairs = adapt(base, settings)
    for pair in pairs:  # as if warm: a cold B = 0 has no gradient in A
        torch.nn.init.normal_(pair.b.weight, std=0.01)
    moments = {name: torch.full_like(weight, 1e-8) for name, weight in weights_of(pairs).items()}
    adam = AdamState({name: torch.zeros_like(moment) for name, moment in moments.items()}, moments, 30)
    generator = torch.Generator().manual_seed(1)
    # Patches to a side; four make a token.
    length, side = (64, 8) if sizes is SMOKE else (1024, 32)
    count = sizes.candidates + sizes.many_anchors
    rows = [_random_row(config, length, side if images else 0, generator) for _ in range(count)]
    # Padding and nothing else is asked of the processing class, and the rows are of one length.
    proxy = Proxy(model, pairs, None, settings, adam)
    return Case(proxy, rows[: sizes.candidates], rows[sizes.candidates :], Collator(0))


def _random_row(config: Any, length: int, side: int, generator: torch.Generator) -> Row:
    # The last number of the vocabulary is the image's.
    ids = torch.randint(0, config.get_text_config().vocab_size - 1, (length,), generator=generator)
    labels = ids.clone()
    labels[: length // 2] = -100
    row = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    if side:
        vision = config.vision_config
        ids[8 : 8 + side * side // 4] = config.image_token_id
        row["mm_token_type_ids"] = (ids == config.image_token_id).long()
        size = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        row["pixel_values"] = torch.randn(side * side, size, generator=generator)
        row["image_grid_thw"] = torch.tensor([[1, side, side]])
    return row


def _encoded(dataset: datasets.Dataset, processing_class: Any) -> EncodedDataset:
    return EncodedDataset(Rows(dataset), Encoder(processing_class))


def _case(proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, sizes: Sizes) -> Case:
    candidates = [pool[row] for row in range(sizes.candidates)]
    collate = Collator.of(proxy.processing_class)
    return Case(proxy, candidates, [anchors[row] for row in range(len(anchors))], collate)


PRESETS: dict[str, Preset] = {
    "tiny_qwen3_vl": Preset(
        "tiny Qwen3-VL, 0.46 M parameters, float32, handwritten arithmetic with images",
        Sizes(64, 100, 1000, 4, 64, 100, 1024),
        4,
        tiny_qwen3_vl,
        SMOKE,
    ),
    "smollm2": Preset(
        "SmolLM2-135M-Instruct, float32, worded sums of 130 to 200 tokens",
        Sizes(8, 16, 32, 0, 8, 8, 1024),
        30,
        smollm2,
        SMOKE,
        half_precision=False,
    ),
    "qwen3_06b": Preset(
        "Qwen3-0.6B's shape, random weights, bfloat16, 1,024 tokens",
        Sizes(64, 32, 128, 2, 16, 8, 16384),
        28,
        qwen3_06b,
        SMOKE,
        trained=False,
    ),
    "qwen3_vl_2b": Preset(
        "Qwen3-VL-2B's shape, random weights, bfloat16, 1,024 tokens with an image of 256",
        Sizes(64, 32, 128, 2, 16, 8, 16384),
        28,
        qwen3_vl_2b,
        SMOKE,
        trained=False,
    ),
}

assert tuple(PRESETS) == PRESET_NAMES
