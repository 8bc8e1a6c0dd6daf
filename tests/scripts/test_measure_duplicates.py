"""The measurement of duplicates runs, and finds what was planted."""

from __future__ import annotations

from pathlib import Path

import pytest
from here import run_script


@pytest.mark.slow
def test_planted_copies_are_found_and_counted(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sizes = ["--rows", "60", "--planted", "10", "--text_rows", "50", "--picture_rows", "30"]
    # The two searches whose time and memory are measured have processes of their own, and print there.
    printed = run_script(root / "scripts" / "measure_duplicates.py", *sizes) + capfd.readouterr().out
    for change in ("noise of 4 grey levels", "smaller by a tenth", "capitals and punctuation", "one word replaced"):
        lines = [line for line in printed.splitlines() if line.startswith(f"| {change} |")]
        assert lines
        assert set(lines) == {f"| {change} | 100.0% | 0 |"}
    assert "| half replaced | 0.0% | 0 |" in printed
    assert "0 of 10 pairs near" in printed
    assert "| texts of 60 words | 50 |" in printed
    assert "| pictures under the same words | 30 |" in printed
