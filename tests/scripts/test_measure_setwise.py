"""The set-wise measurement runs in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_it_prints_seconds_and_memory(root: Path) -> None:
    command = [sys.executable, str(root / "scripts" / "measure_setwise.py"), "--rows", "500", "--size", "16"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "250 of 500 rows with sketches of 16 numbers" in result.stdout
