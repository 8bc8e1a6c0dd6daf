"""Fine-tunes a vision-language model on the rows of a noisy pool that help most.

    accelerate launch --config_file accelerate_configs/deepspeed_zero3.yaml recipes/vlm_sft.py \
        --model Qwen/Qwen3-VL-8B-Instruct --pool pool.parquet \
        --proxy Qwen/Qwen3-VL-2B-Instruct --anchors anchors.parquet \
        --keep_ratio 0.5 --output_dir runs/vlm --bf16 true --num_train_epochs 1

Pool and anchors: `images` or `image`, with `messages`, `prompt`/`completion` or `question`/`answer`. Every field of
OSTConfig, and so of TrainingArguments, is a flag; a model or a section may be JSON, such as
--proxy '{"model": "Qwen/Qwen3-VL-2B-Instruct", "warmup_learning_rate": 1e-4}'.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import HfArgumentParser

from ost_hf import OSTConfig, OSTTrainer
from ost_hf.data.sources import rows_from


@dataclass
class ScriptArguments:
    """The model and the data."""

    model: str = field(metadata={"help": "The model to fine-tune."})
    pool: str = field(metadata={"help": "A name on the Hub, a file, or fields of DatasetConfig as JSON."})


def main() -> None:
    """Scores, selects and trains."""
    script, args = HfArgumentParser((ScriptArguments, OSTConfig)).parse_args_into_dataclasses()
    trainer = OSTTrainer(script.model, args, train_dataset=rows_from(script.pool))
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
