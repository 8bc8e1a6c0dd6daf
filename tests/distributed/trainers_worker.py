"""What each process of a launched training does; started by test_trainers.py.

trainers_worker.py FOLDER MODEL ost|sft: both score the pool when they train, and evaluate on the way.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import datasets

from ost_hf import OSTConfig, OSTSFTConfig, OSTSFTTrainer, OSTTrainer
from ost_hf.models import ModelConfig, load_processing_class
from ost_hf.parallel import gather_objects


def main(folder: Path, model: str, kind: str) -> None:
    """Trains, and writes what every process saw."""
    pool, anchors, test = (datasets.load_from_disk(str(folder / name)) for name in ("pool", "anchors", "test"))
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 2, "max_steps": 3, "eval_strategy": "steps", "eval_steps": 2,
        "save_strategy": "no", "report_to": [], "use_cpu": True, "bf16": False, "keep_count": 8,
        "strategy": "one_step",
    }  # fmt: skip
    made: Any = OSTConfig if kind == "ost" else OSTSFTConfig
    trainer: Any = (OSTTrainer if kind == "ost" else OSTSFTTrainer)(
        model,
        made(str(folder / kind), **settings),
        train_dataset=pool,
        eval_dataset=test if kind == "ost" else test.select([0, 2, 3]),
        processing_class=load_processing_class(ModelConfig(model)),
        proxy={"model": model, "lora_r": 2, "warmup_min_steps": 2, "warmup_batch_size": 4},
        anchors=anchors,
    )
    assert trainer.accelerator.num_processes == 2
    assert not (folder / kind / "ost").exists()
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    facts = {
        "kept": sorted(trainer.selection.kept["row"].to_pylist()),
        "train": len(trainer.train_dataset),
        "eval": len(trainer.eval_dataset),
        "eval_losses": losses,
    }
    everyone = gather_objects([facts])
    if trainer.is_world_process_zero():
        (folder / f"{kind}.json").write_text(json.dumps(everyone))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
