"""The real launcher with two processes, from the repository's own accelerate configs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Launch = Callable[..., str]

# What a machine without an accelerator asks for; everything else is the config that users get.
ON_CPU = {"use_cpu": True, "num_processes": 2, "mixed_precision": "no"}


@pytest.fixture
def on_cpu(root: Path, tmp_path: Path) -> Callable[[str], str]:
    """``on_cpu(config)`` copies one of the repository's accelerate configs for two processes on a CPU."""

    def copy(config: str) -> str:
        given = yaml.safe_load((root / "accelerate_configs" / f"{config}.yaml").read_text())
        file = tmp_path / f"{config}.yaml"
        # A free port of its own: a run before may still hold the default one.
        file.write_text(yaml.safe_dump({**given, **ON_CPU, "main_process_port": 0}))
        return str(file)

    return copy


@pytest.fixture
def launch(on_cpu: Callable[[str], str]) -> Launch:
    """``launch(config, *words)`` runs ``accelerate launch`` with two CPU processes and returns what it printed."""

    def run(config: str, *words: str) -> str:
        command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", on_cpu(config)]
        result = subprocess.run([*command, *words], capture_output=True, text=True, check=False, env={**os.environ})
        printed = result.stdout + result.stderr
        assert result.returncode == 0, printed[-6000:]
        return printed

    return run
