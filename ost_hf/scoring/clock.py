"""Seconds and memory of what is tried on a few rows, on any device."""

from __future__ import annotations

import time
from typing import Any

import torch

from ost_hf.data.encoding.encoded import Encoded
from ost_hf.errors import ModelError
from ost_hf.parallel import state
from ost_hf.scorers.protocol import columns_of

# Seconds after which a pass is not timed again.
_LONG_ENOUGH = 2.0


def now() -> float:
    """Seconds, when the device has done what it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()


def timed_pass(scorer: Any, batches: list[list[Encoded]]) -> tuple[list[float], float]:
    """Utilities in the order of the batches, and the seconds of the fastest pass: a short one is easily disturbed."""
    times: list[float] = []
    while not times or (len(times) < 3 and sum(times) < _LONG_ENOUGH):
        begun = now()
        found = [columns_of(scorer, batch)["utility"] for batch in batches]
        times.append(now() - begun)
    return [float(utility) for utilities in found for utility in utilities], min(times)


def first_line(error: Exception) -> str:
    """What a refusal says, without a traceback's worth of advice from the libraries."""
    line = next(iter(str(error).splitlines()), "")
    return line if isinstance(error, ModelError) else f"{type(error).__name__}: {line}"


def reset_peak_memory() -> None:
    """Forgets the peak of before, where memory is counted: on CUDA devices."""
    if state().device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_memory_gib() -> float | None:
    """The peak since :func:`reset_peak_memory`; ``None`` where it is not known."""
    return torch.cuda.max_memory_allocated() / 2**30 if state().device.type == "cuda" else None
