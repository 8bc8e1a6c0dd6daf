"""The benchmark and its tables: do they run, and say what they should?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from here import run_script


@pytest.fixture(scope="module")
def result(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("benchmark") / "tiny.json"
    run_script(root / "scripts" / "benchmark_scoring.py", "--preset", "tiny_qwen3_vl", "--smoke", "--json", path)
    return path


@pytest.mark.slow
def test_every_figure_of_the_tiny_preset_is_there(result: Path) -> None:
    written = json.loads(result.read_text())
    assert written["machine"]["threads"] == 1
    figures = written["figures"]
    for layers in ("all", "quarter"):
        for kind in ("plain_forward", "lora_training_step", "reverse", "forward", "exact", "reference"):
            assert figures[f"candidates_per_second.{kind}.{layers}"] > 0
    judged = {bar["figure"] for bar in written["bars"]}
    assert {"exact_over_reference.all", "forward_in_plain_forwards.quarter", "20_groups_over_one.reverse"} <= judged
    # What does not depend on the clock holds in a smoke run too.
    assert figures["exact_minus_reference_in_sd.sgd"] < 0.01
    assert figures["spearman_with_exact.reverse.all.sgd"] > 0.95
    assert figures["forward_peak_over_inference"] < 1.3


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["qwen3_06b", "qwen3_vl_2b"])
def test_presets_for_a_gpu_run_in_small(root: Path, tmp_path: Path, preset: str) -> None:
    path = tmp_path / "result.json"
    run_script(root / "scripts" / "benchmark_scoring.py", "--preset", preset, "--smoke", "--json", path)
    figures = json.loads(path.read_text())["figures"]
    assert figures["share_of_matmul_peak.reverse"] > 0
    assert 0 < figures["share_above_first_adapted_layer.quarter"] < 1


@pytest.mark.slow
def test_tables_name_machine_command_and_bars(root: Path, result: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- benchmark tables: scripts/benchmark_table.py -->\nold\n<!-- end of benchmark tables -->\nafter\n"
    )
    script = str(root / "scripts" / "benchmark_table.py")
    subprocess.run([sys.executable, script, str(result), "--into", str(page)], check=True)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "`python scripts/benchmark_scoring.py --preset tiny_qwen3_vl --rounds 1`, 1 interleaved rounds" in text
    assert "| `exact_over_reference.all` |" in text


def test_committed_tables_are_made_from_the_committed_results(root: Path, tmp_path: Path) -> None:
    page = tmp_path / "scoring.md"
    committed = (root / "docs" / "scoring.md").read_text()
    page.write_text(committed)
    files = sorted(map(str, (root / "docs" / "results").glob("benchmark_*.json")))
    assert files
    subprocess.run(
        [sys.executable, str(root / "scripts" / "benchmark_table.py"), *files, "--into", str(page)], check=True
    )
    assert page.read_text() == committed


def test_unknown_preset_names_those_there_are(root: Path) -> None:
    command = [sys.executable, str(root / "scripts" / "benchmark_scoring.py"), "--preset", "tiny"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--preset must be one of tiny_qwen3_vl, smollm2, qwen3_06b, qwen3_vl_2b, got 'tiny'" in done.stderr
