"""Fine-tunes a language model on the rows of a noisy pool that help most, with TRL's SFTTrainer.

    accelerate launch --config_file accelerate_configs/multi_gpu.yaml recipes/text_sft.py \
        --model Qwen/Qwen3-8B --proxy Qwen/Qwen3-0.6B --pool pool.jsonl --anchors anchors.jsonl \
        --keep_ratio 0.5 --output_dir runs/text --bf16 true --packing true --max_length 4096

Pool and anchors: `messages` or `prompt`/`completion`. Every field of OSTSFTConfig, and so of SFTConfig, is a
flag. The kept rows are taken out before SFTTrainer packs them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import AutoTokenizer, HfArgumentParser

from ost_hf import AnchorConfig, DatasetConfig, OSTSFTConfig, OSTSFTTrainer, ProxyConfig, Rows, TargetConfig, load_model


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


def main() -> None:
    """Scores, selects and trains."""
    script, args = HfArgumentParser((ScriptArguments, OSTSFTConfig)).parse_args_into_dataclasses()
    trainer = OSTSFTTrainer(
        model=load_model(TargetConfig(script.model, dtype=script.dtype)),
        args=args,
        train_dataset=Rows.load(DatasetConfig(script.pool, split=script.pool_split)).dataset,
        processing_class=AutoTokenizer.from_pretrained(script.model),
        proxy=ProxyConfig(script.proxy),
        anchors=AnchorConfig(script.anchors, split=script.anchor_split),
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
