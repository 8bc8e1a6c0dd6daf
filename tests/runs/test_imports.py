"""A scorer of one's own, in a file: from the command line to the selection, in one process and in two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from ost_hf.cli.main import main
from ost_hf.tables.score_table import ScoreTable

SCORER = '''
"""Long answers first, and how many processes looked at them."""

from dataclasses import dataclass, field

from ost_hf import register
from ost_hf.errors import ConfigError


@dataclass(frozen=True)
class Options:
    """How long answers are told."""

    power: float = field(default=1.0, metadata={"help": "exponent of the length"})

    def __post_init__(self):
        if self.power <= 0:
            raise ConfigError(f"scoring.long_answers.power must be positive, got {self.power}")


@register("long_answers", options=Options, columns={"always": "process"})
class LongAnswers:
    """The number of supervised tokens, to a power."""

    batch_size = 16

    def __init__(self, options, **unused):
        self.power = options.power

    def score(self, batch):
        import os

        rank = int(os.environ.get("RANK", 0))
        return {"utility": [row.tokens**self.power for row in batch], "process": [rank] * len(batch)}
'''


@pytest.fixture
def folder(tmp_path: Path, vlm_path: str, pool_dataset, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a pool, a YAML and the scorer's file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "long_answers.py").write_text(SCORER)
    pool_dataset.to_parquet(tmp_path / "pool.parquet")
    given = {"run_dir": "run", "pool": {"path": "pool.parquet"}, "proxy": {"model": vlm_path}}
    (tmp_path / "given.yaml").write_text(yaml.safe_dump({**given, "scoring": {"part_size": 15}}))
    return tmp_path


WORDS = ["--import", "long_answers.py", "--scoring.scorer", "long_answers", "--scoring.long_answers.power", "2"]


@pytest.mark.slow
def test_a_scorer_of_ones_own_is_found_by_flags_and_by_later_commands(folder: Path) -> None:
    assert main(["score", "--config", "given.yaml", *WORDS]) == 0
    table = ScoreTable.at("run").read()
    assert table["utility"].to_pylist() == [tokens**2 for tokens in table["tokens"].to_pylist()]
    assert set(table["process"].to_pylist()) == {0}
    written = yaml.safe_load(Path("run/config.yaml").read_text())["scoring"]
    assert written == {
        "part_size": 15, "scorer": "long_answers", "long_answers": {"power": 2}, "imports": ["long_answers.py"],
    }  # fmt: skip
    # In a process of its own: nothing is imported there yet.
    done = subprocess.run(
        [sys.executable, "-m", "ost_hf.cli.main", "select", "--run_dir", "run", "--selection.keep_count", "7"],
        capture_output=True, text=True, check=False, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kept = pq.read_table("run/selection.parquet").filter(pq.read_table("run/selection.parquet")["kept"])
    best = sorted(table["utility"].to_pylist(), reverse=True)[:7]
    utility = dict(zip(table["row"].to_pylist(), table["utility"].to_pylist(), strict=True))
    assert sorted((utility[row] for row in kept["row"].to_pylist()), reverse=True) == best


@pytest.mark.slow
def test_launched_processes_import_it_too(folder: Path) -> None:
    given = {"compute_environment": "LOCAL_MACHINE", "distributed_type": "MULTI_GPU", "use_cpu": True}
    given |= {"num_machines": 1, "num_processes": 2, "machine_rank": 0, "main_process_port": 0}
    Path("cpu.yaml").write_text(yaml.safe_dump(given))
    assert main(["score", "--config", "given.yaml", *WORDS, "--accelerate.score", "cpu.yaml"]) == 0
    table = ScoreTable.at("run").read()
    assert table["utility"].to_pylist() == [tokens**2 for tokens in table["tokens"].to_pylist()]
    assert set(table["process"].to_pylist()) == {0, 1}
    # The configuration is the run directory's once the processes have accepted it, and not before.
    before = Path("run/config.yaml").read_text()
    assert yaml.safe_load(before)["accelerate"] == {"score": "cpu.yaml"}
    # One will do to say no.
    changed = ["--scoring.long_answers.power", "3", "--accelerate.num_processes", "1"]
    assert main(["score", "--run_dir", "run", *changed]) == 2
    assert Path("run/config.yaml").read_text() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--import", "none.py"], "there is no file none.py to import"),
        (["--import", "none.at.all"], "cannot import 'none.at.all'"),
        (WORDS[2:], "; one of your own needs its file in scoring.imports"),
        ([*WORDS[:4], "--scoring.long_answers.pover", "2"], "field of section scoring.long_answers 'pover' (did you"),
        ([*WORDS[:5], "much"], "scoring.long_answers.power must be float, got 'much'"),
        ([*WORDS[:5], "-1"], "scoring.long_answers.power must be positive, got -1.0"),
    ],
)
def test_mistakes_with_it_are_named_and_leave_no_folder(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["score", "--config", "given.yaml", *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("run").exists()
