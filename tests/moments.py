"""Moments of one parameter, ``w``, for tests of the simulated step."""

from __future__ import annotations

import torch

from ost_hf.functional.step import AdamState

SHAPE = (7, 5)


def warm_state(dtype: torch.dtype, steps: int) -> AdamState:
    """The moments of an AdamW that really took ``steps`` steps."""
    parameter = torch.nn.Parameter(torch.randn(SHAPE, dtype=dtype))
    optimizer = torch.optim.AdamW([parameter], lr=1e-2)
    for _ in range(steps):
        parameter.grad = torch.randn(SHAPE, dtype=dtype)
        optimizer.step()
    kept = optimizer.state[parameter]
    return AdamState({"w": kept["exp_avg"].clone()}, {"w": kept["exp_avg_sq"].clone()}, steps)
