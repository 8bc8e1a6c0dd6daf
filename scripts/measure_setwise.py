"""Time and memory of set-wise selection on a pool of a million rows.

    OMP_NUM_THREADS=1 python scripts/measure_setwise.py --rows 1000000 --size 512

Sketches are random directions around a few centres, kept in a file as memory maps are; half of the rows are chosen.
Prints seconds and the process's peak memory.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from ost_hf.selection.setwise import greedy

_PIECE = 2**15


def main() -> None:
    """Writes sketches, selects, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=512, help="numbers in a sketch")
    parser.add_argument("--anchors", type=int, default=100)
    parser.add_argument("--keep_ratio", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    generator = np.random.default_rng(args.seed)
    centres = generator.standard_normal((20, args.size), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        shape = (args.rows, args.size)
        sketches = np.memmap(Path(folder) / "sketches", np.float32, "w+", shape=shape)
        for start in range(0, args.rows, _PIECE):
            stop = min(args.rows, start + _PIECE)
            noise = generator.standard_normal((stop - start, args.size), dtype=np.float32)
            sketches[start:stop] = noise + centres[generator.integers(0, 20, stop - start)]
        anchors = centres[generator.integers(0, 10, args.anchors)]
        anchors = anchors + generator.standard_normal(anchors.shape, dtype=np.float32)
        started = time.perf_counter()
        chosen = greedy(sketches, anchors, quota=round(args.keep_ratio * args.rows))
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{len(chosen.order):,} of {args.rows:,} rows with sketches of {args.size} numbers: {seconds:.0f} s; peak "
        f"memory {peak:.1f} GiB, of which the sketches' file may be {4 * args.rows * args.size / 2**30:.1f} GiB; "
        f"gains were positive for the first {chosen.positive:,}"
    )


if __name__ == "__main__":
    main()
