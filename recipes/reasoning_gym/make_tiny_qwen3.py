"""Makes a tiny, half-taught Qwen3 for the text study.

    python recipes/reasoning_gym/make_tiny_qwen3.py --output runs/bases/text --steps 720 --seed 0

The model has the real class and configuration of Qwen3 and a byte-level BPE tokenizer trained on the tasks' own words.
It is taught on problems that no pool, anchor or test row asks, and stopped while it still gets many answers wrong, so
that fine-tuning has something to add.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import task
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from tiny_models import make_tokenizer, teach

from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""


def make_model(
    tokenizer: transformers.PreTrainedTokenizerFast, seed: int, hidden: int, layers: int
) -> transformers.Qwen3ForCausalLM:
    """Qwen3 with random weights and heads of 16 numbers."""
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 16,
        num_key_value_heads=hidden // 32,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.05,
        **ends,
    )
    torch.manual_seed(seed)
    model = transformers.Qwen3ForCausalLM(config)
    model.generation_config.update(**ends)
    return model


def main() -> None:
    """Makes, teaches and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write the checkpoint to")
    parser.add_argument("--steps", type=int, required=True, help="more steps teach a stronger base")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=3000, help="different problems to teach with")
    parser.add_argument("--hidden_size", type=int, default=96, help="a multiple of 32")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=320, help="tokens, special ones not counted")
    parser.add_argument("--peak", type=float, default=3e-3, help="highest learning rate")
    args = parser.parse_args()

    rows = task.clean_rows(args.rows, "pretraining", args.seed)
    texts = [row[key] for row in rows for key in ("question", "answer")] + ["user assistant\n"] * len(rows)
    tokenizer = make_tokenizer(texts, SPECIAL_TOKENS, CHAT_TEMPLATE, args.vocabulary)
    model = make_model(tokenizer, args.seed, args.hidden_size, args.layers)
    dataset = EncodedDataset(Rows(task.as_dataset(rows)), Encoder(tokenizer))
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters, vocabulary {len(tokenizer)}, {len(dataset[0]['input_ids'])} tokens in a row")
    teach(model, dataset, args.steps, batch_size=32, peak=args.peak, seed=args.seed)
    model.save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
