"""What the studies' tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from here import run_script


@pytest.fixture
def given(tmp_path: Path, vlm_path: str) -> dict[str, Any]:
    """A study of four steps on forty rows."""
    return {
        "run_dir": str(tmp_path / "study"),
        "seeds": [5, 6],
        "workers": 2,
        "keep_ratios": [0.25],
        "protocols": ["A", "B"],
        "reference": "one_step",
        "truth": {"column": "kind", "clean": "clean"},
        "datamodelling": {"subsets": 3, "share": 0.2, "max_steps": 2},
        "settings": {"tiny": {"target": {"model": vlm_path}, "proxy": {"model": vlm_path}}},
        "common": {
            "prepare": [
                "python", "recipes/handwritten_arithmetic/study_data.py", "--output", "{data}", "--seed", "{seed}",
                "--pool_rows", 40, "--anchor_rows", 6, "--test_rows", 10,
            ],
            "pool": {"path": "{data}/pool.parquet"},
            "anchors": {"path": "{data}/anchors.parquet"},
            "proxy": {"warmup_min_steps": 2, "warmup_batch_size": 4},
            "training": {"max_steps": 4, "per_device_train_batch_size": 4, "save_strategy": "no", "report_to": "none"},
            "evaluation": {"path": "{data}/test.parquet", "reference_column": "solution", "max_new_tokens": 4},
        },
        "methods": {
            "untrained": {"untrained": True},
            "everything": {"scoring": {"scorer": "random"}, "selection": {"keep_ratio": 1.0}},
            "one_step": {"strategy": "one_step", "scoring": {"per_anchor": True}},
            "oracle": {
                "scoring": {"scorer": "column", "column": {"name": "is_clean"}}, "selection": {"min_utility": 0.5},
            },
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def prepared(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the study's prepare command makes with seed 5."""
    folder = tmp_path_factory.mktemp("prepared")
    script = root / "recipes" / "handwritten_arithmetic" / "study_data.py"
    sizes = ["--pool_rows", 40, "--anchor_rows", 6, "--test_rows", 10]
    run_script(script, "--output", folder, "--seed", 5, *sizes)
    return folder


@pytest.fixture
def given_data(given: dict[str, Any], prepared: Path) -> dict[str, Any]:
    """The same study with data that is there already, and is copied."""
    copy = "import shutil, sys; shutil.copytree(*sys.argv[1:], dirs_exist_ok=True)"
    given["common"]["prepare"] = ["python", "-c", copy, str(prepared), "{data}"]
    return given
