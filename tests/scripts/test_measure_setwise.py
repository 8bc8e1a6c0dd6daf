"""The set-wise measurement runs in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def measure(root: Path, *words: str) -> str:
    command = [sys.executable, str(root / "scripts" / "measure_setwise.py"), "--rows", "500", "--size", "16", *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_it_prints_seconds_and_memory(root: Path) -> None:
    assert "250 of 500 rows with sketches of 16 numbers" in measure(root)
    assert "250 of 500 rows in 4 strata with sketches of 16 numbers" in measure(root, "--strata", "4")
