"""Fine-tunes a vision-language model on the rows of a noisy pool that help most.

    accelerate launch --config_file accelerate_configs/deepspeed_zero3.yaml recipes/vlm_sft.py \
        --model Qwen/Qwen3-VL-8B-Instruct --proxy Qwen/Qwen3-VL-2B-Instruct \
        --pool pool.parquet --anchors anchors.parquet \
        --keep_ratio 0.5 --output_dir runs/vlm --dtype bfloat16 --bf16 true --num_train_epochs 1

Pool and anchors: `images` or `image`, with `messages`, `prompt`/`completion` or `question`/`answer`. Every
field of OSTConfig, and so of TrainingArguments, is a flag.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import AutoProcessor, HfArgumentParser

from ost_hf import AnchorConfig, DatasetConfig, OSTConfig, OSTTrainer, ProxyConfig, Rows, TargetConfig, load_model


@dataclass
class ScriptArguments:
    """Models and data."""

    model: str = field(metadata={"help": "The model to fine-tune."})
    proxy: str = field(metadata={"help": "The small model that scores the pool."})
    pool: str = field(metadata={"help": "Dataset name on the Hub, or a file."})
    anchors: str = field(metadata={"help": "Dataset of clean problems of the target tasks."})
    pool_split: str = field(default="train", metadata={"help": "Split of the pool."})
    anchor_split: str = field(default="train", metadata={"help": "Split of the anchors."})
    dtype: str = field(default="float32", metadata={"help": "The model's weights; bfloat16 under DeepSpeed."})
    proxy_warmup_learning_rate: float = field(default=2e-4, metadata={"help": "AdamW's rate in the warm-up."})


def main() -> None:
    """Scores, selects and trains."""
    script, args = HfArgumentParser((ScriptArguments, OSTConfig)).parse_args_into_dataclasses()
    # The proxy scores inside the constructor, before the model is wrapped, and is freed again.
    trainer = OSTTrainer(
        model=load_model(TargetConfig(script.model, dtype=script.dtype)),
        args=args,
        train_dataset=Rows.load(DatasetConfig(script.pool, split=script.pool_split)),
        processing_class=AutoProcessor.from_pretrained(script.model),
        proxy=ProxyConfig(script.proxy, warmup_learning_rate=script.proxy_warmup_learning_rate),
        anchors=AnchorConfig(script.anchors, split=script.anchor_split),
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
