"""Stages under accelerate launch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ost_hf.errors import ConfigError
from ost_hf.runs import launcher
from ost_hf.runs.config import build_config, load_config


def test_a_stage_is_launched_where_the_configuration_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # a setting that a shell may export
    config = build_config({"run_dir": "r", "accelerate": {"train": "zero3.yaml"}})
    assert [stage for stage in ("score", "select", "train", "evaluate") if launcher.wants_launch(config, stage)] == [
        "train"
    ]
    config = build_config({"run_dir": "r", "accelerate": {"num_processes": 2}})
    assert not launcher.wants_launch(config, "select")
    assert launcher.wants_launch(config, "score")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert not launcher.wants_launch(config, "score")


@pytest.mark.slow
def test_a_process_that_accelerate_has_launched_is_known(tmp_path: Path) -> None:
    script = tmp_path / "ask.py"
    script.write_text("from ost_hf.runs.launcher import is_launched; print(is_launched())")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ACCELERATE", "LOCAL"))}
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    for words, answer in (([], "False"), (launch, "True")):
        command = [sys.executable, *words, str(script)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [answer]


def test_own_file_of_a_stage_goes_before_the_common_one(tmp_path: Path) -> None:
    for name in ("all.yaml", "train.yaml"):
        (tmp_path / name).write_text("")
    given = {"config_file": str(tmp_path / "all.yaml"), "train": str(tmp_path / "train.yaml"), "num_processes": 3}
    config = build_config({"run_dir": "r", "accelerate": given})
    assert launcher.launch_command(config, "train", "given.yaml")[3:] == [
        "--config_file", str(tmp_path / "train.yaml"), "--num_processes", "3",
        "-m", "ost_hf.cli.main", "train", "--config", "given.yaml",
    ]  # fmt: skip
    assert str(tmp_path / "all.yaml") in launcher.launch_command(config, "score")


def test_training_that_is_resumed_is_resumed_under_the_launcher_too(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        read.append(load_config(command[-1], {}))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    for value in (True, "out/checkpoint-5"):
        given = {"run_dir": "r", "accelerate": {"num_processes": 2}, "training": {"resume_from_checkpoint": value}}
        read.clear()
        launcher.launch(build_config(given), "train")
        assert read == [build_config(given)]


def test_missing_accelerate_config_is_an_error() -> None:
    config = build_config({"run_dir": "r", "accelerate": {"config_file": "none.yaml"}})
    with pytest.raises(ConfigError, match=r"there is no accelerate config none\.yaml: copy one .* or set accelerate"):
        launcher.launch_command(config, "score")


def test_several_machines_are_refused_unless_the_file_says_where_the_first_is(root: Path, tmp_path: Path) -> None:
    file = root / "accelerate_configs" / "multi_node.yaml"
    config = build_config({"run_dir": "r", "accelerate": {"score": str(file)}})
    with pytest.raises(ConfigError, match=r"2 machines.*--machine_rank N --main_process_ip HOST"):
        launcher.launch_command(config, "score")
    whole = tmp_path / "mine.yaml"
    whole.write_text(file.read_text() + "main_process_ip: 10.0.0.1\n")
    config = build_config({"run_dir": "r", "accelerate": {"score": str(whole)}})
    assert str(whole) in launcher.launch_command(config, "score")


@pytest.mark.slow
def test_a_launcher_that_asks_for_the_cpu_gets_it_on_a_machine_with_an_accelerator() -> None:
    code = """
import torch
torch.accelerator.is_available = lambda: True
from ost_hf.models import ModelConfig, weights_dtype
from ost_hf.parallel import on_accelerator, state
assert not on_accelerator()
assert weights_dtype(ModelConfig("any")) == torch.float32
assert state().device.type == "cpu"
"""
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
