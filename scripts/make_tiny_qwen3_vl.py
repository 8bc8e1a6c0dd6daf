"""Makes the tiny, half-taught Qwen3-VL checkpoint that ships with the package.

    python scripts/make_tiny_qwen3_vl.py --output ost_hf/checkpoints/tiny_qwen3_vl

The model has the real class and configuration of Qwen3-VL at hidden size 64, a byte-level BPE tokenizer
trained on the task's own words, and the stock processor. It is taught handwritten arithmetic on scans that
no pool, anchor or test row uses, and stopped while it still gets most answers wrong, so that fine-tuning
has something to add. Takes about one minute on two cores.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import torch
import transformers
from tiny_models import make_tokenizer, teach

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "handwritten_arithmetic"))
import task

from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows

SPECIAL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
{%- elif part.type == 'text' -%}{{- part.text -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""


def make_processor(tokenizer: transformers.PreTrainedTokenizerFast) -> transformers.Qwen3VLProcessor:
    """The stock processor with patches of 4 x 4 pixels: a 32 x 16 picture becomes 8 image tokens."""
    settings = {
        "patch_size": 4,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": 16 * 32, "longest_edge": 64 * 64},
    }
    return transformers.Qwen3VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**settings),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen3VLVideoProcessor(patch_size=4, merge_size=2, temporal_patch_size=2),
        chat_template=tokenizer.chat_template,
    )


def make_model(
    tokenizer: transformers.PreTrainedTokenizerFast, seed: int, hidden: int = 64, layers: int = 4
) -> transformers.Qwen3VLForConditionalGeneration:
    """Qwen3-VL with random weights: heads of 16 numbers, 2 vision layers, one DeepStack layer."""
    special = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    config = transformers.Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 3 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": hidden // 16,
            "num_key_value_heads": hidden // 32,
            "head_dim": 16,
            "max_position_embeddings": 1024,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
            "bos_token_id": None,
            "eos_token_id": special["<|im_end|>"],
            "pad_token_id": special["<|endoftext|>"],
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 2,
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_heads": hidden // 16,
            "out_hidden_size": hidden,
            "patch_size": 4,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = transformers.Qwen3VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = special["<|im_end|>"]
    model.generation_config.pad_token_id = special["<|endoftext|>"]
    return model


def taught_rows(operations: list[str], mostly: list[str], others_share: float, seed: int) -> list[task.Row]:
    """4,000 rows to teach with; with ``mostly``, few of the other operations."""
    if not mostly:
        return task.clean_rows(4000, "pretraining", seed, operations)
    generator = random.Random(seed)
    rows = task.clean_rows(20_000, "pretraining", seed, operations)
    return [row for row in rows if row["operation"] in mostly or generator.random() < others_share][:4000]


def main() -> None:
    """Makes, teaches and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write the checkpoint to")
    parser.add_argument("--steps", type=int, default=175, help="more steps teach a stronger base")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--operations", nargs="+", default=list(task.DEMO_OPERATIONS), choices=list(task.OPERATIONS))
    parser.add_argument("--mostly", nargs="+", default=[], help="operations that it is taught: of the others ...")
    parser.add_argument("--others_share", type=float, default=0.06, help="... only this share of the rows is left")
    parser.add_argument("--hidden_size", type=int, default=64, help="a multiple of 32")
    parser.add_argument("--layers", type=int, default=4, help="of the language model")
    parser.add_argument("--vocabulary", type=int, default=400, help="tokens, special ones not counted")
    parser.add_argument("--peak", type=float, default=2e-3, help="highest learning rate")
    args = parser.parse_args()

    rows = taught_rows(args.operations, args.mostly, args.others_share, args.seed)
    texts = [row[key] for row in rows for key in ("question", "answer")] + ["system user assistant\n"] * 100
    tokenizer = make_tokenizer(texts, SPECIAL_TOKENS, CHAT_TEMPLATE, args.vocabulary)
    processor = make_processor(tokenizer)
    model = make_model(tokenizer, args.seed, args.hidden_size, args.layers)
    dataset = EncodedDataset(Rows(task.as_dataset(rows)), Encoder(processor))
    example = dataset[0]
    parameters = sum(p.numel() for p in model.parameters())
    answer = int((example["labels"] != -100).sum())
    print(
        f"{parameters:,} parameters, vocabulary {len(tokenizer)}, {len(example['input_ids'])} tokens, {answer} answer"
    )
    teach(model, dataset, args.steps, batch_size=64, peak=args.peak, seed=args.seed)
    model.save_pretrained(args.output)
    processor.save_pretrained(args.output)
    size = sum(path.stat().st_size for path in args.output.iterdir())
    print(f"wrote {args.output}: {size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
