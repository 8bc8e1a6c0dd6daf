"""README's script runs as it stands there, but for the models and the number of steps."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import task

from ost_hf.cli.main import main

SHORTER = {"second_look_min_steps": 2, "second_look_batch_size": 8}


def test_the_script_selects_and_trains_and_leaves_scores_to_select_from_again(
    root: Path, text_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Numbers of their own: questions repeat, and no row of the pool may be an anchor.
    for name, first, count in (("pool", 0, 40), ("anchors", 40, 8)):
        rows = enumerate(task.pool_rows(count, seed=1), first)
        lines = [json.dumps({"prompt": f"{n}. {row['question']}", "completion": row["answer"]}) for n, row in rows]
        Path(f"{name}.jsonl").write_text("\n".join(lines))
    found = re.search(r"```python\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    assert found is not None
    script = re.sub(r'"Qwen/Qwen3-[\d.]+B"', repr(text_path), found[1])
    script = script.replace("bf16=True", "use_cpu=True, max_steps=2, report_to=[]")
    script = script.replace("anchors=anchors,", f"anchors=anchors, scoring={SHORTER},")
    exec(compile(script, "README.md", "exec"), {})
    selection = pq.read_table("out/ost/selection.parquet")
    assert "p-value" in selection.schema.metadata[b"explanation"].decode()
    kept = sum(selection["kept"].to_pylist())
    assert 0 < kept <= 20
    assert main(["select", "--run_dir", "out/ost", "--selection.keep_count", "5"]) == 0
    assert sum(pq.read_table("out/ost/selection.parquet")["kept"].to_pylist()) == 5
