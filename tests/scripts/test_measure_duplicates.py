"""The measurement of duplicates runs, and finds what was planted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_planted_copies_are_found_and_counted(root: Path) -> None:
    sizes = ["--rows", "60", "--planted", "10", "--text_rows", "50", "--picture_rows", "30"]
    script = str(root / "scripts" / "measure_duplicates.py")
    printed = subprocess.run([sys.executable, script, *sizes], check=True, capture_output=True, text=True).stdout
    for change in ("noise of 4 grey levels", "smaller by a tenth", "capitals and punctuation", "one word replaced"):
        lines = [line for line in printed.splitlines() if line.startswith(f"| {change} |")]
        assert lines
        assert set(lines) == {f"| {change} | 100.0% | 0 |"}
    assert "| half replaced | 0.0% | 0 |" in printed
    assert "0 of 10 pairs near" in printed
    assert "| texts of 60 words | 50 |" in printed
    assert "| pictures under the same words | 30 |" in printed
