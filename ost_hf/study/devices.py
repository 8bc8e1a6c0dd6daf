"""Which device a worker sees: one of its own, so that scoring and the Trainer have no other to find."""

from __future__ import annotations

import os

_VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible_devices() -> list[str]:
    """Names of the devices that this process sees; none where there are none."""
    given = os.environ.get(_VARIABLE)
    if given is not None:
        return listed_devices(given)
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def listed_devices(given: str) -> list[str]:
    """The devices that a value of ``CUDA_VISIBLE_DEVICES`` lists, by number or by name.

    As CUDA reads it, the list ends before the first entry that can be no device.
    """
    found = []
    for name in (part.strip() for part in given.split(",")):
        if not name or name.startswith("-"):
            break
        found.append(name)
    return found


def device_of_worker(slot: int, devices: list[str]) -> str | None:
    """The device of the worker in a slot: with more workers than devices they go round; ``None`` without any."""
    return devices[slot % len(devices)] if devices else None


def see_only(device: str | None) -> None:
    """Hides all other devices from this process and those it starts; called before anything touches CUDA."""
    if device is not None:
        os.environ[_VARIABLE] = device
