"""How well stored sketches answer for new anchors, and what it costs to ask a scored run again.

    OMP_NUM_THREADS=1 python scripts/measure_reuse.py --rows 20000 --added 1000

Pool and anchors are of the handwritten-arithmetic recipe, the proxy is one of its bases. A pool is scored against some
anchors and stored, once for each size of sketch. Then others are asked: `alike` are of the same five operations, `one`
are of a single operation. Printed are the Spearman correlation with a full run that has the same pool and the new
anchors, and the seconds of both; then the seconds for a pool that has more rows. Every run has a process of its own, so
that none finds what another has encoded; the time in which Python imports its libraries is not counted.

The largest part of the time goes into full runs with the second look. `--second_stage null` leaves that away.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import datasets
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "handwritten_arithmetic"))

import task
import transformers.models.qwen3_vl.modeling_qwen3_vl
import transformers.models.qwen3_vl.processing_qwen3_vl  # noqa: F401  as its model, before any clock runs

import ost_hf
import ost_hf.curate
from ost_hf.evidence.rank_correlation import spearman

if find_spec("deepspeed"):  # which Accelerate imports where it is there
    import deepspeed  # noqa: F401

_ONE = "product"


def parse_args() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="runs/bases/weak", help="folder of the proxy's base model")
    parser.add_argument("--rows", type=int, default=3000, help="rows of the pool")
    parser.add_argument("--added", type=int, default=150, help="rows that the larger pool has more")
    parser.add_argument("--anchors", type=int, default=100)
    parser.add_argument("--sketch_sizes", type=int, nargs="+", default=[256, 512, 1024, 4096])
    parser.add_argument("--timed_size", type=int, default=512, help="the size whose runs have the second stage too")
    parser.add_argument("--second_stage", default="second_look", choices=["second_look", "null"])
    parser.add_argument("--strategy", default="auto", choices=["auto", "thorough"], help="whose second look is taken")
    parser.add_argument("--steps", type=int, default=150, help="least steps of each of the second look's trainings")
    parser.add_argument("--batch_size", type=int, default=32, help="rows of a step of warm-up and second look")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


class Bench:
    """Pools, anchors, and runs of them in a folder."""

    def __init__(self, args: argparse.Namespace, folder: Path):
        self.args, self.folder = args, folder
        seed = 1000 * args.seed + 11
        rows = task.pool_rows(args.rows + args.added, seed=seed)
        operations = list(task.OPERATIONS)
        self.pools = {"stored": task.as_dataset(rows[: args.rows]), "larger": task.as_dataset(rows)}
        self.anchors = {
            "stored": task.as_dataset(task.clean_rows(args.anchors, "anchors", seed + 1, operations)),
            "alike": task.as_dataset(task.clean_rows(args.anchors, "anchors", seed + 2, operations)),
            "one": task.as_dataset(task.clean_rows(args.anchors, "anchors", seed + 3, [_ONE])),
        }

    def run(self, name: str, pool: str, anchors: str, size: int, stage: bool, reuse: str | None = None) -> float:
        """Scores in a process of its own; returns the seconds."""
        context = get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=self._score, args=(sender, name, pool, anchors, size, stage, reuse))
        process.start()
        # A child that fails closes its end without a word.
        sender.close()
        seconds: float = receiver.recv()
        process.join()
        print(f"  {name}: {seconds:.1f} s", file=sys.stderr, flush=True)
        return seconds

    def _score(
        self, sender: Any, name: str, pool: str, anchors: str, size: int, stage: bool, reuse: str | None
    ) -> None:
        datasets.disable_progress_bars()
        batch, seed = self.args.batch_size, self.args.seed
        look = {"learning_rate": 2e-3, "min_steps": self.args.steps, "batch_size": batch}
        scoring = {"store": True, "sketch_size": size, "batch_size": 32, "seed": seed}
        scoring |= {"second_stage": "second_look", "second_look": look} if stage else {"second_stage": None}
        started = time.perf_counter()
        ost_hf.score(
            self.pools[pool],
            self.anchors[anchors],
            proxy={
                "model": self.args.base,
                "warmup_learning_rate": 1e-3,
                "warmup_batch_size": batch,
                "seed": seed,
            },
            output_dir=self.folder / name,
            strategy=self.args.strategy,
            scoring=scoring,
            encoding={"max_length": 256},
            reuse=None if reuse is None else self.folder / reuse,
        )
        sender.send(time.perf_counter() - started)

    def column(self, run: str, name: str) -> np.ndarray:
        """A column of a run's table, NaN where it is empty; of NaN where there is none."""
        table = ost_hf.ScoreTable.at(self.folder / run).read()
        if name not in table.column_names:
            return np.full(len(table), np.nan)
        return table[name].to_numpy().astype(float)


def agreement(one: np.ndarray, other: np.ndarray) -> str:
    """Spearman's correlation over the rows that both have."""
    both = np.isfinite(one) & np.isfinite(other)
    return f"{spearman(one[both].tolist(), other[both].tolist()):.4f}" if both.any() else ""


def main() -> None:
    """Scores, asks again, prints two tables."""
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, Path(folder))
        what = f"{args.rows:,} rows, {args.anchors} anchors, strategy {args.strategy}, second_stage {args.second_stage}"
        print(f"{args.base}, {what}, seed {args.seed}")
        new_anchors(args, bench)
        more_rows(args, bench)


def new_anchors(args: argparse.Namespace, bench: Bench) -> None:
    """The table of sketch sizes and anchors."""
    stages = {"alike": has_stage(args, args.timed_size), "one": False}
    full = {
        anchors: bench.run(f"full-{anchors}", "stored", anchors, args.timed_size, stage)
        for anchors, stage in stages.items()
    }
    print("| numbers in a sketch | new anchors | Spearman of utilities | of p-values | seconds | of a full run's |")
    print("|---|---|---|---|---|---|")
    for size in args.sketch_sizes:
        stage = has_stage(args, size)
        bench.run(f"stored-{size}", "stored", "stored", size, stage)
        for anchors in ("alike", "one"):
            name = f"again-{size}-{anchors}"
            seconds = bench.run(name, "stored", anchors, size, stage, reuse=f"stored-{size}")
            found = [
                agreement(bench.column(name, column), bench.column(f"full-{anchors}", column))
                for column in ("utility", "corrupted_p")
            ]
            # Only runs of the same stages are compared.
            share = f"{seconds / full[anchors]:.1%}" if stage == stages[anchors] else ""
            print(f"| {size} | {anchors} | {found[0]} | {found[1]} | {seconds:.1f} | {share} |", flush=True)


def more_rows(args: argparse.Namespace, bench: Bench) -> None:
    """The line of a pool that has grown."""
    stage, stored = has_stage(args, args.timed_size), f"stored-{args.timed_size}"
    if args.timed_size not in args.sketch_sizes:
        bench.run(stored, "stored", "stored", args.timed_size, stage)
    whole = bench.run("full-larger", "larger", "stored", args.timed_size, stage)
    seconds = bench.run("again-larger", "larger", "stored", args.timed_size, stage, reuse=stored)
    share = f"{seconds / whole:.1%} of the {whole:.1f} s for all of them"
    print(f"\n{args.added:,} rows added to {args.rows:,}: {seconds:.1f} s, {share}")


def has_stage(args: argparse.Namespace, size: int) -> bool:
    """Whether runs with sketches of a size have a second look: that of one size is enough."""
    return bool(args.second_stage == "second_look" and size == args.timed_size)


if __name__ == "__main__":
    main()
