"""A study compares rows that are kept or not with rows whose losses are weighed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))

from here import run_groups_here
from tiny_study import Record, write

from ost_hf.cli.main import main
from ost_hf.selection.kept import read_selection


@pytest.mark.slow
def test_hard_and_soft_selection_are_two_methods(
    given_data: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = {"scoring": {"second_look": {"rounds": 1, "min_steps": 2, "batch_size": 4}}}
    given_data |= {
        "seeds": [5], "workers": 1, "protocols": ["B"], "reference": "hard", "keep_targets": True,
        "methods": {
            "hard": {**look, "selection": {"keep_ratio": 1.0}},
            "soft": {**look, "selection": {"keep_ratio": 1.0, "weighted_loss": True}},
        },
    }  # fmt: skip
    del given_data["datamodelling"]
    run_groups_here(monkeypatch)
    assert main(["study", "--config", str(write(given_data, tmp_path))]) == 0
    hard, soft = (next((tmp_path / "study").rglob(f"{name}/**/selection.parquet")).parent for name in ("hard", "soft"))
    assert read_selection(soft).kept["row"].to_pylist() == read_selection(hard).kept["row"].to_pylist()
    weights = read_selection(soft).table["ost_weight"].to_pylist()
    assert len(weights) == 40 and 0 <= min(weights) < max(weights) <= 1
    assert "ost_weight" not in read_selection(hard).table.column_names
    one, other = (load_file(folder / "target" / "model.safetensors") for folder in (hard, soft))
    assert max(float((other[name] - one[name]).abs().max()) for name in one) > 1e-5
