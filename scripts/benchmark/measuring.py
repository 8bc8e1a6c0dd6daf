"""Clocks and meters: interleaved rounds, peak memory, the device's matrix product peak."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


def synchronize() -> None:
    """Waits for the accelerator, if there is one."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def seconds(run: Callable[[], Any]) -> float:
    """Wall-clock time of one call."""
    synchronize()
    start = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - start


def interleaved(contestants: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Times every contestant once in each round, after one round that does not count.

    What disturbs the machine for a while disturbs all of them, so that ratios within a round hold.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            taken = seconds(run)
            if number:
                times[name].append(taken)
    return times


def ratio(times: Mapping[str, list[float]], one: str, other: str, factor: float = 1.0) -> dict[str, float]:
    """Median, lowest and highest of the rounds' ratios ``one / other``, times ``factor``."""
    values = [factor * a / b for a, b in zip(times[one], times[other], strict=True)]
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


class _LiveBytes(TorchDispatchMode):
    """Counts the storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        given = {id_of(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor) and id_of(tensor) not in given | self._known:
                self._watch(tensor.untyped_storage())
        return output

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def id_of(tensor: torch.Tensor) -> int:
    """What tells one storage from another while both live."""
    return tensor.untyped_storage()._cdata


def peak_bytes(run: Callable[[], Any]) -> int:
    """Memory at its highest during a call, beyond what was held before it.

    On CUDA the allocator's own figure; elsewhere the sum of living tensors' storages, which sees what
    operations return but not what a kernel needs while it runs.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with _LiveBytes() as meter:
        run()
    return meter.peak


def flops(model: Any, run: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and attention in a call that runs the model."""
    with _plain_attention(model), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def flops_by_module(model: Any, run: Callable[[], Any]) -> dict[str, int]:
    """The same for each module by its dotted name, the root's class first; ``Global`` is all."""
    with _plain_attention(model), FlopCounterMode(display=False) as counter:
        run()
    return {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}


@contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """Attention by products that every counter knows: before 2.13 PyTorch's refuses fused kernels with grouped keys."""
    base = model.get_base_model()
    before = base.config._attn_implementation
    base.set_attn_implementation("eager")
    try:
        yield
    finally:
        base.set_attn_implementation(before)


def matmul_peak(dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product on this device: the best of ten."""
    size = 8192 if torch.accelerator.is_available() else 1024
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    a @ b
    return max(2 * size**3 / seconds(lambda: a @ b) for _ in range(10))
