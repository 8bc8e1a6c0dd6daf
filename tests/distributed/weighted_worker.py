"""What each process of a training with weights does; started by test_weighted.py.

weighted_worker.py FOLDER MODEL ost|sft OPTIMIZER PROCESSES
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import datasets

from ost_hf import OSTConfig, OSTSFTConfig, OSTSFTTrainer, OSTTrainer
from ost_hf.models import ModelConfig, load_model, load_processing_class


def main(folder: Path, model: str, kind: str, optimizer: str, processes: int) -> None:
    """Takes two steps of twelve rows each, and writes the model and what was logged."""
    made: Any = OSTConfig if kind == "ost" else OSTSFTConfig
    args = made(
        str(folder / "out"), per_device_train_batch_size=2, gradient_accumulation_steps=6 // processes, max_steps=2,
        learning_rate=0.5 if optimizer == "sgd" else 1e-3, lr_scheduler_type="constant", optim=optimizer,
        logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, bf16=False, weighted_loss=True,
    )  # fmt: skip
    trainer: Any = (OSTTrainer if kind == "ost" else OSTSFTTrainer)(
        load_model(ModelConfig(model)),
        args,
        train_dataset=datasets.load_from_disk(str(folder / "pool")),
        processing_class=load_processing_class(ModelConfig(model)),
        selection=folder / "selection.parquet",
    )
    assert trainer.accelerator.num_processes == processes
    trainer.train()
    trainer.save_model(str(folder / f"target-{processes}"))
    if trainer.is_world_process_zero():
        seen = [[entry["loss"], entry["grad_norm"]] for entry in trainer.state.log_history if "grad_norm" in entry]
        (folder / f"logged-{processes}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5]))
