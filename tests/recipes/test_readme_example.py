"""README's example and the quickstart's run as they stand there, but for the models and the number of steps."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import task

from ost_hf.cli.main import main
from ost_hf.runs.config import build_config
from ost_hf.runs.yaml_values import parse_yaml

SHORTER = {"second_look": {"rounds": 1, "epochs": 0.1, "min_steps": 2, "batch_size": 8}}


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of a language on a page."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that examples read, and the working directory."""
    monkeypatch.chdir(tmp_path)
    # Numbers of their own: questions repeat, and no row of the pool may be an anchor.
    for name, first, count in (("pool", 0, 40), ("anchors", 40, 8), ("test", 48, 4)):
        rows = enumerate(task.pool_rows(count, seed=1), first)
        lines = [json.dumps({"prompt": f"{n}. {row['question']}", "completion": row["answer"]}) for n, row in rows]
        Path(f"{name}.jsonl").write_text("\n".join(lines))
    return tmp_path


def run(script: str, text_path: str) -> None:
    """Runs a script with a tiny model and two steps."""
    script = re.sub(r'"Qwen/Qwen3-[\d.]+B"', repr(text_path), script)
    script = script.replace("bf16=True", "use_cpu=True, max_steps=2, report_to=[]")
    exec(compile(script, "example", "exec"), {})


@pytest.mark.slow
def test_the_front_page_scores_selects_and_trains(root: Path, text_path: str, data: Path) -> None:
    (script,) = blocks(root / "README.md", "python")
    script = script.replace('output_dir="runs/mine"', f'output_dir="runs/mine", scoring={SHORTER}')
    run(script, text_path)
    results = json.loads((data / "out" / "checkpoint-2" / "trainer_state.json").read_text())
    assert results["global_step"] == 2
    # The scores lie where they were asked for, to be chosen from again.
    assert main(["select", "--run_dir", "runs/mine", "--selection.keep_count", "5"]) == 0
    assert sum(pq.read_table("runs/mine/selection.parquet")["kept"].to_pylist()) == 5


@pytest.mark.slow
def test_the_trainer_selects_and_trains_and_leaves_scores_to_select_from_again(
    root: Path, text_path: str, data: Path
) -> None:
    (script,) = (block for block in blocks(root / "docs" / "quickstart.md", "python") if "OSTTrainer(" in block)
    run(script.replace('anchors="anchors.jsonl",', f'anchors="anchors.jsonl", scoring={SHORTER},'), text_path)
    assert "p-value" in json.loads(Path("out/ost/selection.json").read_text())["explanation"]
    kept = sum(pq.read_table("out/ost/selection.parquet")["kept"].to_pylist())
    assert 0 < kept <= 20
    assert main(["select", "--run_dir", "out/ost", "--selection.keep_count", "5"]) == 0
    assert sum(pq.read_table("out/ost/selection.parquet")["kept"].to_pylist()) == 5


def test_the_yaml_of_the_front_page_is_one_that_runs(root: Path) -> None:
    (text,) = blocks(root / "README.md", "yaml")
    config = build_config(parse_yaml(text, "README.md"))
    config.require("pool", "anchors", "proxy", "target", "evaluation")
    for stage in ("score", "train"):
        assert (root / str(config.accelerate.file_for(stage))).is_file()


def test_the_front_page_is_short(root: Path) -> None:
    assert len((root / "README.md").read_text().splitlines()) <= 120
