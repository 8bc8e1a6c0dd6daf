"""Where results come from: the code's commit, the machine, the libraries."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ost_hf._version import __version__

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
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "accelerators": devices,
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in _LIBRARIES},
    }


@lru_cache
def _commit() -> str | None:
    folder = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None  # an installed package has no commit
    return found.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
