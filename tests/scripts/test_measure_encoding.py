"""The measurement of encoding runs, and says what it is about."""

from __future__ import annotations

from pathlib import Path

from here import run_script


def test_a_line_for_each_size(root: Path) -> None:
    script = root / "scripts" / "measure_encoding.py"
    printed = run_script(script, "--turns", "2", "6", "--words", "6", "--repeats", "1").splitlines()
    assert [line.split(",")[0] for line in printed] == ["2 turns", "6 turns"]
    assert all("ratio" in line for line in printed)
