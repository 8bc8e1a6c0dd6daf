"""Processes that lag behind one another by more than the process group's own patience, which a training set.

Started by test_launch.py; fails if one does not wait for the other.
"""

from __future__ import annotations

import time
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.distributed_c10d import _set_pg_timeout

from ost_hf.parallel import barrier, gather_objects, main_process_first, state

PATIENCE, LAG = 1.0, 3.0


def main() -> None:
    """Lets each wait for the other."""
    rank = state().process_index
    _set_pg_timeout(timedelta(seconds=PATIENCE), dist.group.WORLD)
    for late in (0, 1):
        if rank == late:
            time.sleep(LAG)
        barrier()
    if rank == 1:
        time.sleep(LAG)
    assert gather_objects([rank]) == [0, 1]
    begun = time.monotonic()
    with main_process_first():
        time.sleep(LAG)
    assert time.monotonic() - begun >= LAG * (1 + rank) * 0.9


if __name__ == "__main__":
    main()
