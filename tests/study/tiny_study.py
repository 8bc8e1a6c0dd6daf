"""Writes the YAML of a tiny study; and what a worker may do in place of running a group."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ost_hf.runs.yaml_values import dump_yaml

Record = dict[str, Any]


def write(given: Record, folder: Path) -> Path:
    """``study.yaml`` in a folder."""
    path = folder / "study.yaml"
    path.write_text(dump_yaml(given))
    return path


def note_devices(study: Any, group: Any, methods: list[str]) -> list[str]:
    """In a worker's process: writes down which devices it and what it starts can see."""
    group.data.mkdir(parents=True)
    (group.data / "seen").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    return []
