"""Fine-tunes a language model on the rows of a noisy pool that help most, with TRL's SFTTrainer.

    accelerate launch --config_file accelerate_configs/multi_gpu.yaml recipes/text_sft.py \
        --model Qwen/Qwen3-8B --pool pool.jsonl --proxy Qwen/Qwen3-0.6B --anchors anchors.jsonl \
        --keep_ratio 0.5 --output_dir runs/text --bf16 true --packing true --max_length 4096

Pool and anchors: `messages` or `prompt`/`completion`. Every field of OSTSFTConfig, and so of SFTConfig, is a flag;
sections are JSON, such as --scoring '{"second_look": {"rounds": 2}}'. The kept rows are taken out before SFTTrainer
packs them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import AutoTokenizer, HfArgumentParser

from ost_hf import OSTSFTConfig, OSTSFTTrainer
from ost_hf.data.sources import rows_from


@dataclass
class ScriptArguments:
    """The model and the data."""

    model: str = field(metadata={"help": "The model to fine-tune."})
    pool: str = field(metadata={"help": "A name on the Hub, a file, or fields of DatasetConfig as JSON."})


def main() -> None:
    """Scores, selects and trains."""
    script, args = HfArgumentParser((ScriptArguments, OSTSFTConfig)).parse_args_into_dataclasses()
    trainer = OSTSFTTrainer(
        script.model,
        args,
        train_dataset=rows_from(script.pool).dataset,
        processing_class=AutoTokenizer.from_pretrained(script.model),
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
