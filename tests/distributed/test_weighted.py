"""Two processes take the weighted step of one, under DDP and DeepSpeed, with accumulation."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
import weighted_worker
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from ost_hf.selection.kept import Selection

WORKER = str(Path(__file__).with_name("weighted_worker.py"))
COUNT = 24


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Rows of unlike lengths and weights, so that processes and micro-batches have unlike parts of both."""
    ids = [f"row {n}" for n in range(COUNT)]
    rows = {
        "prompt": [f"question {n} " for n in range(COUNT)],
        "completion": ["answer " * (1 + n % 7) for n in range(COUNT)],
        "example_id": ids,
    }
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "pool")
    weights = np.random.default_rng(0).random(COUNT) ** 3
    table = {"example_id": ids, "row": list(range(COUNT)), "kept": [True] * COUNT, "ost_weight": weights}
    Selection(pa.table(table)).write(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", ["ost", "sft"])
@pytest.mark.parametrize(
    ("config", "optimizer"),
    [("multi_gpu", "sgd"), ("deepspeed_zero2", "adamw_torch"), ("deepspeed_zero3", "adamw_torch")],
)
def test_two_processes_take_the_step_of_one(
    config: str, optimizer: str, kind: str, folder: Path, text_path: str, launch
) -> None:
    AcceleratorState._reset_state(True)
    weighted_worker.main(folder, text_path, kind, optimizer, 1)
    launch(config, WORKER, str(folder), text_path, kind, optimizer, "2")
    one, two = (load_file(folder / f"target-{processes}" / "model.safetensors") for processes in (1, 2))
    start = load_file(Path(text_path) / "model.safetensors")
    moved = max(float((one[name] - start[name]).abs().max()) for name in one)
    assert moved > 1e-3
    assert max(float((two[name] - weight).abs().max()) for name, weight in one.items()) < 0.01 * moved
    # Optimizers that rescale gradients would hide a factor: loss and gradient norm would not.
    logged = [json.loads((folder / f"logged-{processes}.json").read_text()) for processes in (1, 2)]
    assert np.allclose(*logged, rtol=1e-3)
