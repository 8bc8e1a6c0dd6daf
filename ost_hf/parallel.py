"""What the code needs of Accelerate: who am I, wait for the others, share a few objects.

Everything goes through ``PartialState``: it carries the launcher's settings (processes, device, backend)
without an engine, so the same functions work beside a plain ``Trainer``, under DDP, and beside a live
DeepSpeed configuration.
"""

from __future__ import annotations

import atexit
import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

# Seconds that processes wait for one another: torch's own ten minutes are for steps of a training.
_timeout = 86400.0
# The group in which they do, and the one of all processes beside which it was made.
_waiting: tuple[Any, dist.ProcessGroup] | None = None


def set_timeout(seconds: float) -> None:
    """Sets how long processes wait for one another; before the first :func:`state`."""
    global _timeout
    _timeout = seconds


def state() -> PartialState:
    """The process state of this run; made on first use from the launcher's environment.

    Where the run is of the CPU that is asked for explicitly: Accelerate's state would otherwise look for a CUDA
    device under a DeepSpeed launch, and take one that is there whatever the launcher says.
    """
    # What a process may lag behind: their shares are equal in rows, not in time, and a part more can take hours. One
    # that fails is no reason for a limit: the launcher ends the others. An existing state takes no notice.
    patience = {"timeout": timedelta(seconds=_timeout)}
    made = bool(PartialState._shared_state) or on_accelerator()
    current = PartialState(**patience) if made else PartialState(cpu=True, **patience)
    if current.num_processes > 1:
        # Once, however often it is asked for.
        atexit.unregister(_let_gloo_finish)
        atexit.register(_let_gloo_finish)
    return current


def on_accelerator() -> bool:
    """Whether this run is of the machine's accelerator: there is one, and the launcher did not ask for the CPU."""
    if PartialState._shared_state:
        return bool(PartialState().device.type != "cpu")
    return torch.accelerator.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU")


def _let_gloo_finish() -> None:
    """Releases the interpreter's lock for a moment before the interpreter goes.

    Gloo's threads drop the tensors of the last collective after their waiter was woken, and need the
    lock for that. One that asks for it while the interpreter is finalising is ended by CPython inside a
    C++ destructor, and the whole process aborts with "terminate called without an active exception".
    """
    time.sleep(0.5)


def is_main() -> bool:
    """Whether this is the process that writes what is written once."""
    return state().is_main_process


def barrier() -> None:
    """Waits until every process has come here."""
    if state().num_processes > 1:
        dist.barrier(group=_waiting_group())


def _waiting_group() -> dist.ProcessGroup:
    """All processes, with the patience of :func:`set_timeout` whoever made the process group.

    ``TrainingArguments`` makes one that waits half an hour. Over gloo: who waits there leaves the accelerator alone.
    """
    global _waiting
    if _waiting is None or _waiting[0] is not dist.group.WORLD:
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=_timeout))
        _waiting = (dist.group.WORLD, group)
    return _waiting[1]


@contextmanager
def main_process_first() -> Iterator[None]:
    """Lets the main process run the block before the others, so that they find its caches."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def gather_objects(items: list[Any]) -> list[Any]:
    """Concatenates every process's list in the order of ranks, on every process.

    Objects travel between the run's own processes only; nothing of it is stored.
    """
    if state().num_processes == 1:
        return items
    gathered: list[Any] = [None] * state().num_processes
    dist.all_gather_object(gathered, items, group=_waiting_group())
    return [item for part in gathered for item in part]


def sum_over_processes(tensors: list[torch.Tensor]) -> None:
    """Replaces each tensor by its sum over the processes, in place."""
    if state().num_processes > 1:
        for tensor in tensors:
            dist.all_reduce(tensor, op=dist.ReduceOp.SUM)


def free_memory() -> None:
    """Gives the accelerator's cached memory back after a model was dropped or a batch was too large."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def share(indices: list[Any]) -> list[Any]:
    """This process's share of a list that is the same everywhere: every n-th item from its rank on."""
    return indices[state().process_index :: state().num_processes]


@contextmanager
def outside_deepspeed() -> Iterator[None]:
    """Hides a live DeepSpeed configuration from ``from_pretrained``.

    A model loaded while a ZeRO-3 configuration is live comes out partitioned over the processes. The
    proxy must come out whole: it is scored with, then freed, before the target's engine starts.
    """
    from transformers.integrations import deepspeed as integration

    live = None
    if integration.is_deepspeed_available():
        reference = integration._hf_deepspeed_config_weak_ref
        live = reference() if reference is not None else None
    # Accelerate's launcher also asks for partitioned construction through the environment.
    variable = "ACCELERATE_DEEPSPEED_ZERO3_INIT"
    asked = os.environ.pop(variable, None)
    if live is not None:
        integration.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if live is not None:
            integration.set_hf_deepspeed_config(live)
        if asked is not None:
            os.environ[variable] = asked
