"""What each process of a launched training does; started by test_launch.py.

train_worker.py FOLDER MODEL DISTRIBUTED_TYPE selection|proxy
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import datasets

from ost_hf import OSTConfig, OSTTrainer
from ost_hf.data.config import AnchorConfig
from ost_hf.models import ModelConfig, load_model, load_processing_class
from ost_hf.parallel import gather_objects
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig


def main(folder: Path, model_path: str, wanted: str, what: str) -> None:
    """Trains four steps and writes what was seen."""
    args = OSTConfig(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=4,
        max_steps=4,
        learning_rate=1e-3,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        keep_count=20 if what == "proxy" else None,
    )
    model = load_model(ModelConfig(model_path))
    pool = datasets.Dataset.from_parquet(str(folder / "pool.parquet"))
    given = (
        {"selection": folder / "selection.parquet"}
        if what == "selection"
        else {
            "proxy": ProxyConfig(model_path, warmup_min_steps=3, warmup_batch_size=4),
            "scoring": ScoringConfig(sections={"second_look": {"min_steps": 2, "batch_size": 4}}),
            "anchors": AnchorConfig(str(folder / "anchors.parquet")),
        }
    )
    trainer = OSTTrainer(
        model,
        args,
        train_dataset=pool,
        processing_class=load_processing_class(ModelConfig(model_path)),
        **given,
    )
    accelerator = trainer.accelerator
    assert accelerator.distributed_type.value == wanted, accelerator.distributed_type
    assert accelerator.num_processes == 2, accelerator.num_processes
    loader = trainer.get_train_dataloader()
    assert trainer.num_examples(loader) == 20
    seen = sum(len(batch["labels"]) for batch in loader)
    rows = gather_objects([row for batch in loader.batch_sampler for row in batch])
    result = trainer.train()
    trainer.save_model(str(folder / "target"))
    if trainer.is_world_process_zero():
        facts = {
            "distributed_type": accelerator.distributed_type.value,
            "num_processes": accelerator.num_processes,
            "rows_in_this_process": seen,
            "rows": sorted(rows),
            "kept": result.metrics["train_rows_kept"],
        }
        (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
