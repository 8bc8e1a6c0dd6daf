"""What ``--help`` and ``--help-all`` print, and flags for scorers of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ost_hf.cli.commands import COMMANDS
from ost_hf.cli.flags import read_words, section_fields
from ost_hf.cli.main import main
from ost_hf.errors import ConfigError
from ost_hf.runs.config import SECTIONS

OWN = """
from dataclasses import dataclass, field

from ost_hf import register


@dataclass(frozen=True)
class Options:
    words: int = field(default=3, metadata={"help": "how many words are too many"})


@register("own_of_help", options=Options)
class Own:
    def __init__(self, options, **_):
        self.options = options

    def score(self, batch):
        return [0.0] * len(batch)
"""


@pytest.mark.parametrize("command", [*COMMANDS, "study"])
def test_help_is_one_screen(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 48
    assert max(map(len, lines)) <= 110
    assert any("--config FILE" in line for line in lines)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_what_most_people_set(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, command, "--help")
    assert "--run_dir RUN_DIR" in text
    assert f"ost-hf {command} --help-all" in text
    assert ("--training.FIELD VALUE" in text) == (command in ("train", "run"))
    shown = {
        "pool": ["pool.path"], "anchors": ["anchors.path", "anchors.size"], "encoding": ["encoding.max_length"],
        "proxy": ["proxy.model"], "scoring": ["scoring.scorer", "scoring.second_stage", "scoring.second_look.rounds"],
        "selection": ["selection.keep_ratio", "selection.order"], "target": ["target.model"],
        "evaluation": ["evaluation.path"], "hub": ["hub.repo_id", "hub.private"],
        "accelerate": ["accelerate.config_file"], "duplicates": ["duplicates.near"],
    }  # fmt: skip
    for section in COMMANDS[command].sections:
        for name in shown[section]:
            assert f" --{name} VALUE" in text
        # Whole words, not the beginning of long ones.
        for name, item in section_fields(section, complete=False):
            if item.metadata.get("common"):
                words = item.metadata.get("short") or item.metadata["help"]
                assert len(words) <= 65, name
                assert " ".join(words.replace("%%", "%").split()) in text, name


@pytest.mark.parametrize("command", COMMANDS)
def test_help_all_is_complete(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, command, "--help-all")
    assert "--config FILE" in text
    assert "--run_dir RUN_DIR" in text
    for section in COMMANDS[command].sections:
        assert f"{section}: --{section}." in text
        for name, _ in section_fields(section):
            assert f"--{name} VALUE" in text
    if "scoring" in COMMANDS[command].sections:
        for name in ("one_step", "judge", "deita", "less", "column", "second_look", "cascade"):
            assert f"scoring.{name}: --scoring.{name}." in text
    if command in ("train", "run"):
        assert "--training.learning_rate VALUE" in text
        assert "--training.sampling VALUE" in text
        assert "--training.output_dir" not in text


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command prints that only prints, as one line."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", [*COMMANDS, "study"])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = f"import sys, ost_hf.cli.main as m\ntry:\n  m.main(['{command}', '--help'])\nexcept SystemExit: pass\n"
    code += "heavy = {'torch', 'transformers', 'datasets', 'accelerate', 'peft', 'pyarrow'} & set(sys.modules)\n"
    code += "assert not heavy, heavy"
    # Of the processor's time, not the clock's: the machine may be busy.
    before = os.times()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    after = os.times()
    assert result.returncode == 0, result.stderr
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1


def test_every_field_has_a_help_text() -> None:
    for section in SECTIONS:
        for name, item in section_fields(section):
            assert len(item.metadata["help"]) > 10, name


def test_help_all_lists_the_options_of_a_scorer_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.py").write_text(OWN)
    text = printed(capsys, "score", "--import", str(tmp_path / "own.py"), "--help-all")
    assert "--scoring.own_of_help.words VALUE how many words are too many [default 3]" in text


def test_a_flag_without_a_value_takes_no_other_flag_for_one() -> None:
    given = ["train", "--training.bf16", "--training.max_steps", "5"]
    with pytest.raises(ConfigError, match=r"--training\.bf16 needs a value \(one that begins with -- is given as"):
        read_words(given)
    assert read_words(["score", "--scoring.own.text=--x", "--scoring.own.least", "-1"]).overrides == {
        "scoring.own.text": "--x", "scoring.own.least": "-1",
    }  # fmt: skip


def test_files_to_import_are_beside_those_of_the_yaml() -> None:
    words = read_words(["score", "--import", "a.py", "--import=b.py", "--scoring.own.words", "5"])
    assert words.imports == ["a.py", "b.py"]
    assert words.overrides == {"scoring.own.words": "5"}
    with pytest.raises(ConfigError, match=r"'--import'; score, doctor, run take it; see "):
        read_words(["select", "--import", "a.py"])
