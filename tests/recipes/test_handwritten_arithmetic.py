"""The demo's task and its recipe."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import task
from here import run_script

from ost_hf.evaluation.answers import extract_answer
from ost_hf.runs.yaml_values import dump_yaml, parse_yaml
from ost_hf.study.table import as_markdown


def test_scans_are_disjoint_between_all_parts() -> None:
    parts = {name: set(task.scans_of(name)) for name in task.SCANS}
    assert sum(len(scans) for scans in parts.values()) == len(set.union(*parts.values())) == 1797
    rows = {
        "pretraining": task.clean_rows(2000, "pretraining", 1),
        "pool": task.pool_rows(2000, 2),
        "anchors": task.clean_rows(300, "anchors", 3),
        "test": task.clean_rows(2000, "test", 4),
    }
    for name, made in rows.items():
        assert {row[side] for row in made for side in ("left_scan", "right_scan")} <= parts[name]


def test_disjoint_scans_are_different_pictures() -> None:
    """The set holds no scan twice, so that disjoint numbers are disjoint images."""
    images = task._digits()[0].reshape(1797, -1)
    assert len(np.unique(images, axis=0)) == 1797


def test_rows_are_a_function_of_the_seed() -> None:
    assert task.pool_rows(50, 7) == task.pool_rows(50, 7)
    assert task.pool_rows(50, 7) != task.pool_rows(50, 8)


def test_clean_rows_are_right() -> None:
    labels = task._digits()[1]
    for row in task.clean_rows(200, "test", 0):
        a, b = int(labels[row["left_scan"]]), int(labels[row["right_scan"]])
        right = {"sum": a + b, "difference": abs(a - b), "maximum": max(a, b), "product": a * b}[row["operation"]]
        assert row["solution"] == extract_answer(row["answer"]) == str(right)


def test_half_the_pool_is_corrupted_and_each_kind_is_wrong_in_its_way() -> None:
    rows = task.pool_rows(3000, 1)
    kinds = Counter(row["kind"] for row in rows)
    assert kinds["clean"] / 3000 == pytest.approx(0.5, abs=0.03)
    assert set(kinds) == {"clean", *task.DEMO_CORRUPTIONS}
    labels = task._digits()[1]
    for row in rows:
        a, b = int(labels[row["left_scan"]]), int(labels[row["right_scan"]])
        says_the_digits = row["answer"].startswith(f"left {a}, right {b}.")
        if row["kind"] in ("clean", "wrong_arithmetic"):
            assert says_the_digits
        else:
            assert not says_the_digits
        if row["kind"] in ("wrong_arithmetic", "wrong_bare_answer"):
            assert extract_answer(row["answer"]) != row["solution"]


def test_checkpoint_is_small_and_in_the_package(vlm_path: str) -> None:
    files = [path for path in Path(vlm_path).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 4_000_000
    assert not {path.suffix for path in files} & {".bin", ".pt", ".pkl"}


@pytest.mark.slow
def test_recipe_writes_the_summary_and_a_whole_run_directory(root: Path, tmp_path: Path) -> None:
    sizes = {"pool_rows": 20, "anchor_rows": 6, "test_rows": 8, "agreement_rows": 5, "max_steps": 2}
    words = [word for name, size in sizes.items() for word in (f"--{name}", str(size))]
    recipe = root / "recipes" / "handwritten_arithmetic"
    settings = parse_yaml((recipe / "run.yaml").read_text(), "run.yaml")
    settings["proxy"] |= {"warmup_min_steps": 2, "warmup_batch_size": 4}
    settings["scoring"]["second_look"] |= {"rounds": 1, "epochs": 0.1, "min_steps": 2, "batch_size": 4}
    settings["training"]["per_device_train_batch_size"] = 4
    (tmp_path / "short.yaml").write_text(dump_yaml(settings))
    command = [sys.executable, str(recipe / "run.py"), "--config", str(tmp_path / "short.yaml"), *words]
    result = subprocess.run(
        [*command, "--run_dir", str(tmp_path / "demo"), "--seeds", "3", "4"],
        capture_output=True, text=True, check=False, cwd=root, env={**os.environ},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-5000:]
    summary = json.loads((tmp_path / "demo" / "summary.json").read_text())
    for arm, rows in (("base", 0), ("full", 20), ("random", 10), ("ost", 10)):
        assert summary[arm]["rows"] == rows
        assert 0 <= summary[arm]["exact_match"] <= 1
        assert (summary[arm]["corrupted_share"] is None) == (arm == "base")
    assert 0 <= summary["auc"] <= 1
    assert -1 <= summary["spearman_exact_first_order"] <= 1
    assert summary["seconds"] > 0
    assert set(summary["per_seed"]) == {"3", "4"}
    assert "OST half" in result.stdout
    expected = {"config.yaml", "proxy", "scores", "selection.parquet", "selection.json", "target", "metrics.json"}
    assert expected <= {path.name for path in (tmp_path / "demo" / "seed-3").iterdir()}


@pytest.mark.slow
def test_tables_are_those_of_the_results(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed is what the commands make of the committed results."""
    results = root / "docs" / "results"
    for file in results.glob("*/results.json"):
        assert file.with_suffix(".md").read_text() == as_markdown(json.loads(file.read_text())), file
    bars = (results / "bars.md").read_text()
    found = re.search(r"Made by `python (.+)`", bars)
    assert found is not None
    script, *words = found[1].split()
    monkeypatch.chdir(root)
    assert bars == run_script(root / script, *words)


def made_up(
    scores: dict[str, tuple[float, float]], seeds: tuple[int, ...] = (1, 2, 3), **fields: Any
) -> dict[str, Any]:
    """A study of two settings, with these scores of each method in each; they differ between seeds."""
    arm = {"protocol": "B", "commit": "abc", "version": "0", "rows_kept": 10, "clean_share": 0.9, **fields}
    rows = [
        {**arm, "setting": setting, "method": method, "seed": seed, "score": of[place] + 0.01 * seed}
        for method, of in scores.items()
        for place, setting in enumerate(("first", "second"))
        for seed in seeds
    ]
    return {
        "settings": ["first", "second", "not_run"], "truth": {"column": "is_fit", "clean": 1}, "results": rows,
        "everything": "everything", "oracle": "oracle", "reference": "auto", "methods": list(scores),
    }  # fmt: skip


def bars_of(root: Path, folder: Path, **studies: dict[str, Any]) -> dict[str, list[str]]:
    """What bars.py says of studies: measured and verdict by bar."""
    for name, study in studies.items():
        (folder / name).mkdir()
        (folder / name / "results.json").write_text(json.dumps(study))
    printed = run_script(root / "recipes" / "handwritten_arithmetic" / "bars.py", folder)
    lines = [line.strip("|").split("|") for line in printed.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_bars_of_the_study_that_aims(root: Path, tmp_path: Path) -> None:
    scores = {"everything": (0.4, 0.5), "random": (0.3, 0.4), "auto": (0.6, 0.52), "rds": (0.55, 0.6)}
    study = made_up({**scores, "oracle": (0.7, 0.6), "untrained": (0.9, 0.9)})
    for row in study["results"]:
        row |= {"protocol": None} if row["method"] == "untrained" else {}
        row |= {"rows_kept": 8, "clean_share": 1.0} if row["method"] == "oracle" and row["setting"] == "first" else {}
        row |= {"rows_kept": 12, "clean_share": 1.0} if row["method"] == "oracle" and row["setting"] == "second" else {}
        row |= {"clean_share": 0.6} if row["method"] == "auto" and row["setting"] == "first" else {}
    found = bars_of(root, tmp_path, aim=study)
    above, kept = "no other method above it by more than 2 (upper end)", "keeps 85 % of what the oracle would"
    assert found[f"aim, first, `auto`, 3 seeds: {above}"] == ["rds -5.0 [-5.0, -5.0]", "met"]
    assert found[f"aim, second, `auto`, 3 seeds: {above}"] == ["rds +8.0 [+8.0, +8.0]", "**missed**"]
    # Six of the eight rows that are right; and nine of the ten that there is room for.
    assert found[f"aim, first, `auto`, 3 seeds: {kept}"] == ["75.0% [75.0, 75.0]", "**missed**"]
    assert found[f"aim, second, `auto`, 3 seeds: {kept}"] == ["90.0% [90.0, 90.0]", "met"]
    mean = "aim, mean of 2 settings, `auto`"
    # Three quarters of the way in one setting, three fifths in the other.
    assert found[f"{mean}: 60 % of the way from random to the oracle"] == ["67.5% [67.5, 67.5]", "met"]
    assert found[f"{mean}: over everything by 3 points"] == ["+11.0 [+11.0, +11.0]", "met"]
    assert found["gate"] == ["has not run", ""]
    assert not [bar for bar in found if "thorough" in bar]


def test_bars_of_few_rows_ask_for_less(root: Path, tmp_path: Path) -> None:
    study = made_up(
        {"everything": (0.4, 0.5), "random": (0.3, 0.4), "auto": (0.6, 0.5), "rds": (0.5, 0.5), "oracle": (0.7, 0.6)}
    )
    found = [bar for bar in bars_of(root, tmp_path, aim_5=study) if bar.startswith("aim_5")]
    assert [bar.split(": ")[1].split(" ")[0] for bar in found] == ["no", "no", "60"]


def test_bars_of_what_is_hard_to_see(root: Path, tmp_path: Path) -> None:
    study = made_up({"auto": (0.0, 0.0), "one_step": (0.0, 0.0), "low_loss": (0.0, 0.0)})
    kept = {"auto": (0.2, 0.3), "one_step": (0.18, 0.2), "low_loss": (0.3, 0.5)}
    for row in study["results"]:
        share = kept[row["method"]][row["setting"] == "second"]
        row["kept_by"] = {"clean": 0.6, "wrong_arithmetic": share + 0.1, "wrong_operation": share - 0.1}
    found = bars_of(root, tmp_path, subtle=study)
    bar = "wrong rows dropped, at most 3 points fewer"
    first = ["80.0% [80.0, 80.0], against one_step -2.0 [-2.0, -2.0]", "met"]
    assert found[f"subtle, first, `auto`, 3 seeds: {bar}"] == first
    assert found[f"subtle, second, `auto`, 3 seeds: {bar}"][1] == "**missed**"


def test_bars_are_of_both_strategies_where_both_ran(root: Path, tmp_path: Path) -> None:
    scores = {"everything": (0.4, 0.5), "random": (0.3, 0.4), "low_loss": (0.5, 0.55), "oracle": (0.7, 0.8)}
    scores |= {"thorough": (0.65, 0.75), "auto": (0.62, 0.77)}
    counts = {"1": {"toxic": 1, "none": 9}, "0": {"toxic": 9}}
    found = bars_of(root, tmp_path, gate=made_up(scores, verdicts=counts))
    assert found["gate, first, `thorough`, 3 seeds: over random by 10 points"] == ["+35.0 [+35.0, +35.0]", "met"]
    assert found["gate, first, `auto`, 3 seeds: over random by 10 points"] == ["+32.0 [+32.0, +32.0]", "met"]
    assert found["gate, second, `auto`: called corrupted wrongly at most 7 %"] == ["10.0% [10.0, 10.0]", "**missed**"]
    loss = "gate, mean: thorough - auto at most 1 point, upper bound at most 1.5"
    assert found[loss] == ["+0.5 [+0.5, +0.5], 3 seeds", "met"]


def test_a_strategy_that_ran_in_some_settings_has_no_bars_yet(root: Path, tmp_path: Path) -> None:
    scores = {"random": (0.3, 0.4), "thorough": (0.65, 0.75), "auto": (0.62, 0.76)}
    study = made_up(scores, extra_copies_kept=0.2)
    study["results"] = [row for row in study["results"] if (row["method"], row["setting"]) != ("auto", "second")]
    found = bars_of(root, tmp_path, copies=study)
    assert found["copies, `auto`"] == ["has not run in second", ""]
    kept = "at most one in ten extra copies kept"
    assert found[f"copies, second, `thorough`: {kept}"] == ["20.0% [20.0, 20.0]", "**missed**"]
    assert not [bar for bar in found if bar.startswith("copies, first, `auto`")]


@pytest.mark.slow
def test_calibration_says_what_it_was_made_with(root: Path, tmp_path: Path, vlm_path: str) -> None:
    script = root / "recipes" / "handwritten_arithmetic" / "calibration.py"
    sizes = ["--seeds", "3", "--utilities", "raw", "--pool_rows", "24", "--truth_anchors", "30"]
    words = ["--model", vlm_path, "--run_dir", str(tmp_path / "run"), "--output", str(tmp_path / "it.json"), *sizes]
    printed = run_script(script, *words)
    report = json.loads((tmp_path / "it.json").read_text())
    assert "--pool_rows 24" in report["command"]
    assert sum(count["rows"] for count in report["results"][0]["by_kind"].values()) == 24
    assert "raw: false discoveries" in printed


@pytest.mark.slow
def test_worse_anchors_are_worse_as_they_are_said_to_be(root: Path, tmp_path: Path) -> None:
    script = root / "recipes" / "handwritten_arithmetic" / "study_data.py"
    sizes = ["--pool_rows", "30", "--anchor_rows", "40", "--test_rows", "5"]
    for folder, flags in (("plain", []), ("worse", ["--worse_anchors"])):
        run_script(script, "--output", tmp_path / folder, "--seed", 3, *sizes, *flags)
    assert {path.name for path in (tmp_path / "plain").iterdir()} == {"pool.parquet", "anchors.parquet", "test.parquet"}
    # What is written beside them changes neither the pool nor the anchors.
    for name in ("pool", "anchors", "test"):
        files = [tmp_path / folder / f"{name}.parquet" for folder in ("plain", "worse")]
        assert files[0].read_bytes() == files[1].read_bytes()
    corrupted = pq.read_table(tmp_path / "worse" / "anchors_corrupted.parquet").to_pylist()
    assert sum(row["kind"] != "clean" for row in corrupted) == 4
    skewed = pq.read_table(tmp_path / "worse" / "anchors_skewed.parquet").to_pylist()
    assert all(row["kind"] == "clean" for row in skewed)
    assert 30 <= sum(row["operation"] == "maximum" for row in skewed) < 40
