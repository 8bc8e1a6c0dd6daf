"""Writes the YAML of a tiny study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ost_hf.runs.yaml_values import dump_yaml

Record = dict[str, Any]


def write(given: Record, folder: Path) -> Path:
    """``study.yaml`` in a folder."""
    path = folder / "study.yaml"
    path.write_text(dump_yaml(given))
    return path
