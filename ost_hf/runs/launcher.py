"""Starts a stage under ``accelerate launch`` where the configuration asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ost_hf.errors import ConfigError, OSTError
from ost_hf.runs.config import CONFIG_FILE, RunConfig

# Selecting is sorting a table: one process does.
LAUNCHED_STAGES = ("score", "train", "evaluate")
# What ``accelerate launch`` sets for one process without torchrun; any of them by itself may be a user's own setting.
_OF_ACCELERATE = ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_CPU", "ACCELERATE_DYNAMO_MODE")


def is_launched() -> bool:
    """Whether this process was started by ``accelerate launch``, ``torchrun`` or the like."""
    return "LOCAL_RANK" in os.environ or all(name in os.environ for name in _OF_ACCELERATE)


def wants_launch(config: RunConfig, stage: str) -> bool:
    """Whether ``stage`` should run in processes of its own."""
    wanted = config.accelerate.file_for(stage) is not None or config.accelerate.num_processes is not None
    return wanted and stage in LAUNCHED_STAGES and not is_launched()


def processes_of(config: RunConfig, stage: str) -> int | None:
    """In how many processes a stage would be launched; ``None`` where its file leaves that to ``accelerate``."""
    if config.accelerate.num_processes is not None:
        return config.accelerate.num_processes
    file = config.accelerate.file_for(stage)
    return _read(file).get("num_processes") if file is not None else None


def _read(file: str) -> dict[str, Any]:
    import yaml

    found = yaml.safe_load(Path(file).expanduser().read_text())
    return found if isinstance(found, dict) else {}


def launch_command(config: RunConfig, stage: str, config_file: str = CONFIG_FILE) -> list[str]:
    """The ``accelerate launch`` line of a stage, whose processes read the configuration from a file.

    Raises:
        ConfigError: If the accelerate config does not exist, or is of several machines and does not say where the first
            one is.
    """
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    file = config.accelerate.file_for(stage)
    if file is not None:
        if not Path(file).expanduser().is_file():
            raise ConfigError(
                f"there is no accelerate config {file}: copy one from the repository's accelerate_configs, make one "
                "with `accelerate config`, or set accelerate.num_processes instead"
            )
        given = _read(file)
        if (given.get("num_machines") or 1) > 1 and not given.get("main_process_ip"):
            raise ConfigError(
                f"{file} is of {given['num_machines']} machines, and a stage is started on this one alone: give each "
                "machine a copy with its machine_rank and main_process_ip, or run on each `accelerate launch "
                f"--config_file {file} --machine_rank N --main_process_ip HOST -m ost_hf.cli.main {stage} --config "
                "FILE`"
            )
        command += ["--config_file", str(Path(file).expanduser())]
    if config.accelerate.num_processes is not None:
        command += ["--num_processes", str(config.accelerate.num_processes)]
    return [*command, "-m", "ost_hf.cli.main", stage, "--config", config_file]


def launch(config: RunConfig, stage: str) -> None:
    """Runs a stage in processes of its own and waits for it.

    Raises:
        OSTError: If it fails.
    """
    # Not in the run directory: a stage that refuses leaves that as it was.
    with tempfile.TemporaryDirectory(prefix="ost-hf-") as folder:
        file = Path(folder) / CONFIG_FILE
        file.write_text(config.as_yaml())
        code = subprocess.run(launch_command(config, stage, str(file)), check=False).returncode
    if code != 0:
        raise OSTError(f"the {stage} stage ended with exit status {code}; its own message is above")
