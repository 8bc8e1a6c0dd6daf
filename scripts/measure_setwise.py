"""Time and memory of set-wise selection on a pool of a million rows.

    OMP_NUM_THREADS=1 python scripts/measure_setwise.py --rows 1000000 --size 512 --strata 1

Sketches are random directions around a few centres, kept in a file as memory maps are; half of the rows are chosen.
Strata are of equal parts and follow the centres, so that some are full long before others. Measured is the order as
``ost-hf select`` runs it. Prints seconds, the process's peak memory, and the order's words.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from ost_hf.selection.orders import ORDER_FUNCTIONS, Candidates
from ost_hf.selection.strata import rooms

_CENTRES = 20
_PIECE = 2**15


def main() -> None:
    """Writes sketches, selects, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=512, help="numbers in a sketch")
    parser.add_argument("--anchors", type=int, default=100)
    parser.add_argument("--keep_ratio", type=float, default=0.5)
    parser.add_argument("--strata", type=int, default=1, help=f"strata to balance, 1 to {_CENTRES}")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if not 1 <= args.strata <= _CENTRES:
        parser.error(f"--strata must be 1 to {_CENTRES}, got {args.strata}")
    generator = np.random.default_rng(args.seed)
    centres = generator.standard_normal((_CENTRES, args.size), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        shape = (args.rows, args.size)
        sketches = np.memmap(Path(folder) / "sketches", np.float32, "w+", shape=shape)
        centre = generator.integers(0, _CENTRES, args.rows)
        for start in range(0, args.rows, _PIECE):
            stop = min(args.rows, start + _PIECE)
            noise = generator.standard_normal((stop - start, args.size), dtype=np.float32)
            sketches[start:stop] = noise + centres[centre[start:stop]]
        anchors = centres[generator.integers(0, 10, args.anchors)]
        anchors = anchors + generator.standard_normal(anchors.shape, dtype=np.float32)
        stratum, quota = centre % args.strata, round(args.keep_ratio * args.rows)
        room = rooms(stratum, quota, "equal")
        utility = generator.standard_normal(args.rows)
        started = time.perf_counter()
        order = ORDER_FUNCTIONS["setwise"](
            Candidates(utility, quota, stratum, room, sketch=sketches, anchor_sketch=anchors)
        )
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    strata = f" in {args.strata} strata" if args.strata > 1 else ""
    print(
        f"{len(order.kept):,} of {args.rows:,} rows{strata} with sketches of {args.size} numbers: {seconds:.0f} s; "
        f"peak memory {peak:.1f} GiB, of which the sketches' file may be {4 * args.rows * args.size / 2**30:.1f} GiB; "
        f"{order.explanation}"
    )


if __name__ == "__main__":
    main()
