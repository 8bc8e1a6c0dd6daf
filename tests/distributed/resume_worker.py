"""What each process of a training that is resumed in the middle of its second epoch does.

resume_worker.py FOLDER MODEL
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import datasets

from ost_hf import OSTConfig, OSTTrainer
from ost_hf.models import ModelConfig, load_model, load_processing_class


def main(folder: Path, model_path: str) -> None:
    """Trains eight steps at once, and again from the checkpoint at the fourth; writes how far apart they end."""
    pool = datasets.Dataset.from_parquet(str(folder / "pool.parquet"))

    def make() -> OSTTrainer:
        args = OSTConfig(
            output_dir=str(folder / "out"),
            per_device_train_batch_size=4,
            max_steps=8,
            save_steps=4,
            learning_rate=1e-3,
            report_to=[],
            use_cpu=True,
        )
        return OSTTrainer(
            load_model(ModelConfig(model_path)),
            args,
            train_dataset=pool,
            processing_class=load_processing_class(ModelConfig(model_path)),
            selection=folder / "selection.parquet",
        )

    whole, resumed = make(), make()
    assert whole.accelerator.num_processes == 2
    whole.train()
    resumed.train(resume_from_checkpoint=str(folder / "out" / "checkpoint-4"))
    pairs = zip(whole.model.parameters(), resumed.model.parameters(), strict=True)
    difference = max(float((one - other).detach().abs().max()) for one, other in pairs)
    if whole.is_world_process_zero():
        facts = {"steps_per_epoch": len(whole.get_train_dataloader()), "difference": difference}
        (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
