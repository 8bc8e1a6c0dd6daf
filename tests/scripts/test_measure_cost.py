"""The measurement of selection's cost runs in small, goes on where it stopped, and adds up."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from here import run_script

SMALL = ["--anchors", "4", "--lora_steps", "2", "--proxy.warmup_min_steps", "2", "--proxy.warmup_batch_size", "4"]
SMALL += ["--scoring.second_look.rounds", "1", "--scoring.second_look.cross_fit", "false"]
SMALL += ["--scoring.second_look.max_steps", "2", "--scoring.second_look.batch_size", "4"]


@pytest.fixture
def arithmetic(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What cost_page.py defines."""
    return runpy.run_path(str(root / "scripts" / "cost_page.py"))


@pytest.mark.slow
def test_sizes_are_measured_once_and_lie_on_a_line(root: Path, tmp_path: Path) -> None:
    def measure(*words: object) -> str:
        own = ["--run_dir", tmp_path / "runs", "--output", tmp_path / "cost.json", "--at", 1000]
        return run_script(root / "scripts" / "measure_cost.py", *own, *words)

    measure("--rows", 20, *SMALL)
    first = json.loads((tmp_path / "cost.json").read_text())["variants"]["auto"]
    assert first["fits"] == {}
    printed = measure("--rows", 20, 40, *SMALL)
    assert (tmp_path / "cost.md").read_text() + "\n" == printed
    variant = json.loads((tmp_path / "cost.json").read_text())["variants"]["auto"]
    assert variant["sizes"][0] == first["sizes"][0]
    assert [size["pool_rows"] for size in variant["sizes"]] == [20, 40]
    # Everything but trial batches: 2 steps of 4 rows with an adapter, 4 anchors 2 + 2 + 1 times, 2 steps of 4 rows of
    # all weights; and for each row 2 and 1.
    parts = variant["fits"]["parts"]
    constant = {name: round(line["constant"]) for name, line in parts.items() if name != "trial_batches"}
    assert constant == {
        "warm_up": 16, "set_up": 8, "anchors": 12, "first": 0, "second_look_training": 24, "second_look_asking": 0,
    }  # fmt: skip
    assert parts["first"]["per_row"] == pytest.approx(2)
    assert parts["second_look_asking"]["per_row"] == pytest.approx(1)
    assert variant["lora"]["seconds_per_row"] > 0
    assert all(size["memory"]["most"] >= size["memory"]["before"] > 0 for size in variant["sizes"])
    assert [each["measured"] for each in variant["totals"]] == [True, True, False]
    with pytest.raises(SystemExit):
        measure("--rows", 20, *SMALL, "--seed", 2)


def test_total_cost_is_selection_over_three_passes_of_the_target_and_the_kept_half(arithmetic: dict[str, Any]) -> None:
    assert arithmetic["total_cost"](14, ratio=1, epochs=1) == pytest.approx(14 / 3 + 0.5)
    assert arithmetic["total_cost"](15, ratio=10, epochs=1) == pytest.approx(1)
    assert arithmetic["total_cost"](15, ratio=10, epochs=3) == pytest.approx(0.5 + 0.5 / 3)


def test_line_says_how_far_a_measurement_is_from_it(arithmetic: dict[str, Any]) -> None:
    line = arithmetic["fitted"]([10, 20, 40], [130, 160, 220])
    assert (line["constant"], line["per_row"]) == (pytest.approx(100), pytest.approx(3))
    assert line["largest_miss"] == pytest.approx(0)
    assert arithmetic["fitted"]([10, 20, 40], [130, 160, 300])["largest_miss"] > 0.01
    assert arithmetic["fitted"]([10], [130]) is None


def test_committed_page_is_made_from_the_committed_measurements(root: Path, arithmetic: dict[str, Any]) -> None:
    report = json.loads((root / "docs" / "results" / "cost.json").read_text())
    assert (root / "docs" / "results" / "cost.md").read_text() == arithmetic["page"](report)
