"""Stages under accelerate launch."""

from __future__ import annotations

from pathlib import Path

import pytest

from ost_hf.cli import launcher
from ost_hf.cli.config import build_config
from ost_hf.cli.yaml_values import parse_yaml
from ost_hf.errors import ConfigError


def test_a_stage_is_launched_where_the_configuration_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_RANK", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    config = build_config({"run_dir": "r", "accelerate": {"train": "zero3.yaml"}})
    assert [stage for stage in ("score", "select", "train", "evaluate") if launcher.wants_launch(config, stage)] == [
        "train"
    ]
    config = build_config({"run_dir": "r", "accelerate": {"num_processes": 2}})
    assert not launcher.wants_launch(config, "select")
    assert launcher.wants_launch(config, "score")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert not launcher.wants_launch(config, "score")


def test_own_file_of_a_stage_goes_before_the_common_one(tmp_path: Path) -> None:
    for name in ("all.yaml", "train.yaml"):
        (tmp_path / name).write_text("")
    given = {"config_file": str(tmp_path / "all.yaml"), "train": str(tmp_path / "train.yaml"), "num_processes": 3}
    config = build_config({"run_dir": "r", "accelerate": given})
    assert launcher.launch_command(config, "train")[3:] == [
        "--config_file", str(tmp_path / "train.yaml"), "--num_processes", "3",
        "-m", "ost_hf.cli.main", "train", "--config", "r/config.yaml",
    ]  # fmt: skip
    assert str(tmp_path / "all.yaml") in launcher.launch_command(config, "score")


def test_training_that_is_resumed_is_resumed_under_the_launcher_too() -> None:
    for value, text in ((True, "true"), ("out/checkpoint-5", '"out/checkpoint-5"')):
        given = {"run_dir": "r", "accelerate": {"num_processes": 2}, "training": {"resume_from_checkpoint": value}}
        command = launcher.launch_command(build_config(given), "train")
        assert command[-2:] == ["--training.resume_from_checkpoint", text]
        assert parse_yaml(text, "x") == value
        assert "resume" not in " ".join(launcher.launch_command(build_config(given), "score"))


def test_missing_accelerate_config_is_an_error() -> None:
    config = build_config({"run_dir": "r", "accelerate": {"config_file": "none.yaml"}})
    with pytest.raises(ConfigError, match=r"there is no accelerate config none\.yaml: copy one .* or set accelerate"):
        launcher.launch_command(config, "score")
