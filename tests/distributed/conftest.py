"""The real launcher with two processes, from the repository's own accelerate configs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from pair import Pair

Launch = Callable[..., str]

# What a machine without an accelerator asks for; everything else is the config that users get.
ON_CPU = {"use_cpu": True, "num_processes": 2, "mixed_precision": "no"}


def _command(config_file: str) -> list[str]:
    return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config_file]


@pytest.fixture(scope="session")
def on_cpu(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """``on_cpu(config)`` copies one of the repository's accelerate configs for two processes on a CPU."""
    folder = tmp_path_factory.mktemp("accelerate")

    def copy(config: str) -> str:
        given = yaml.safe_load((root / "accelerate_configs" / f"{config}.yaml").read_text())
        file = folder / f"{config}.yaml"
        # A free port of its own: a run before may still hold the default one.
        file.write_text(yaml.safe_dump({**given, **ON_CPU, "main_process_port": 0}))
        return str(file)

    return copy


@pytest.fixture(scope="session")
def launch_alone(on_cpu: Callable[[str], str]) -> Launch:
    """``launch_alone(config, *words)`` runs ``accelerate launch`` with two CPU processes; returns what it printed."""

    def run(config: str, *words: str) -> str:
        result = subprocess.run([*_command(on_cpu(config)), *words], capture_output=True, text=True, check=False)
        printed = result.stdout + result.stderr
        assert result.returncode == 0, printed[-6000:]
        return printed

    return run


@pytest.fixture(scope="session")
def launch(on_cpu: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """The same in a pair of processes that stays for the tests after; pair.py says what is different."""
    pairs: dict[str, Pair] = {}

    def run(config: str, *words: str) -> str:
        if config not in pairs:
            pairs[config] = Pair(_command(on_cpu(config)), tmp_path_factory.mktemp("pair"))
        try:
            return pairs[config].run(list(words))
        except BaseException:
            # The other process may wait for the one that failed: the next job has a new pair.
            pairs.pop(config).close()
            raise

    yield run
    assert [pair.close() for pair in pairs.values()] == [0] * len(pairs)
