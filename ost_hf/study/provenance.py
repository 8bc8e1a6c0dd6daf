"""Where results come from: the code's commit, the machine, the libraries, the configuration and the models' weights."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ost_hf._version import __version__
from ost_hf.models import hash_of_weights
from ost_hf.runs.config import RunConfig

# What tells apart processors of one name: of x86, and of ARM.
_MODEL = ("cpu family", "model", "CPU implementer", "CPU part")
_LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets")


def version_of_code() -> dict[str, Any]:
    """The package's version, and the commit it was run from where it is a checkout."""
    return {"version": __version__, "commit": _commit()}


def machine(workers: int = 1) -> dict[str, Any]:
    """What ran it, in words that mean something elsewhere.

    Args:
        workers: How many processes shared it.
    """
    import torch

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "workers": workers,
        "processor": _cpuinfo("model name") or platform.processor() or platform.machine(),
        # One name is given to processors that differ in speed and in how sums are rounded.
        "processor_model": ", ".join(
            f"{key.removeprefix('cpu ')} {value}" for key in _MODEL if (value := _cpuinfo(key))
        ),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": available_cores(),
        "accelerators": devices,
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
    }


def available_cores() -> int:
    """How many cores this process may use, where the system tells; else how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def configuration_hash(config: RunConfig) -> str:
    """What tells whether results of two machines are repetitions of one thing.

    Args:
        config: The arm's, of a repetition that is the same for all: names of files may hold the seed.

    Returns:
        A hash of all fields, defaults too, but for seeds and the run directory.
    """
    fields = config.resolved()
    fields.pop("run_dir")
    for section in fields.values():
        if isinstance(section, dict):
            section.pop("seed", None)
    text = json.dumps(fields, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def weights(config: RunConfig) -> dict[str, str]:
    """Hashes of an arm's proxy and target, where they lie here."""
    found = {}
    for name in ("proxy", "target"):
        source = getattr(config, name)
        folder = None if source is None else Path(source.model).expanduser()
        if folder is not None and folder.is_dir():
            found[name] = hash_of_weights(folder)
    return found


@lru_cache
def _commit() -> str | None:
    file = Path(__file__)

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=file.parent, capture_output=True, text=True, check=True).stdout

    try:
        git("ls-files", "--error-unmatch", file.name)  # a virtual environment inside another project is not its commit
        return git("describe", "--always", "--dirty", "--abbrev=10", "--exclude=*").strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None  # an installed package has no commit


def _cpuinfo(key: str) -> str | None:
    """The first core's entry in Linux's list; ``None`` where there is none."""
    info = Path("/proc/cpuinfo")
    pairs = (line.partition(":") for line in (info.read_text().splitlines() if info.exists() else []))
    return next((value.strip() for name, _, value in pairs if name.strip() == key), None)
