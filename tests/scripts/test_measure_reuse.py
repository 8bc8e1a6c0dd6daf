"""The measurement of asking a run again works in small."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_it_prints_agreement_and_seconds(root: Path, vlm_path: str) -> None:
    words = ["--base", vlm_path, "--rows", "40", "--added", "5", "--anchors", "8", "--sketch_sizes", "64", "512"]
    command = [sys.executable, str(root / "scripts" / "measure_reuse.py"), *words, "--steps", "2", "--batch_size", "2"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    lines = re.findall(r"^\| (\d+) \| (alike|one) \| (\S+) \| (\S*) \|", result.stdout, re.MULTILINE)
    assert [line[:2] for line in lines] == [(size, anchors) for size in ("64", "512") for anchors in ("alike", "one")]
    assert all(0.3 < float(line[2]) <= 1 for line in lines)
    assert [bool(line[3]) for line in lines] == [False, False, True, False]
    assert re.search(r"^5 rows added to 40: \S+ s, \S+% of the \S+ s for all of them$", result.stdout, re.MULTILINE)
