"""Pool, anchors and test rows of one repetition of a study, with the trouble that is asked for.

    python recipes/handwritten_arithmetic/study_data.py --output runs/data --seed 100

Beside the demo's rows it knows a fifth operation (`double`) and a sixth corruption (`wrong_operation`), which no
default was chosen on. The pool says of each row what was done to it (`kind`, `is_clean`), whether it is clean and asks
what the test asks (`is_fit`), and which rows are copies of one another (`copy_group`, none for a row that stands there
once).
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import datasets
import task

TEST_SEED = 99


def parse_args() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--operations", nargs="+", default=list(task.OPERATIONS), choices=list(task.OPERATIONS))
    parser.add_argument("--corruptions", nargs="+", default=list(task.CORRUPTIONS), choices=list(task.CORRUPTIONS))
    parser.add_argument("--pool_rows", type=int, default=3000)
    parser.add_argument("--noise", type=float, default=0.5, help="share of corrupted rows in the pool")
    parser.add_argument("--majority", default=None, help="an operation that fills ...")
    parser.add_argument("--majority_share", type=float, default=0.9, help="... this share of the pool")
    parser.add_argument("--copied_rows", type=int, default=0, help="so many rows of the pool are planted again ...")
    parser.add_argument("--copies", type=int, default=5, help="... so many times, in place of other rows")
    parser.add_argument("--near_copies", action="store_true", help="copies have a little noise in their pictures")
    parser.add_argument(
        "--target", default=None, choices=list(task.OPERATIONS),
        help="anchors and test ask this operation alone; the pool's `is_fit` says which rows are clean and ask it",
    )  # fmt: skip
    parser.add_argument("--anchor_rows", type=int, default=100)
    parser.add_argument(
        "--worse_anchors", action="store_true",
        help="also write anchors_corrupted.parquet (a tenth of them) and anchors_skewed.parquet (mostly `maximum`)",
    )  # fmt: skip
    parser.add_argument("--test_rows", type=int, default=600)
    return parser.parse_args()


def main() -> None:
    """Writes three Parquet files, or five."""
    args = parse_args()
    datasets.disable_progress_bars()
    rows = {
        "pool": make_pool(args),
        "anchors": make_anchors(args),
        "test": task.clean_rows(args.test_rows, "test", TEST_SEED, asked(args)),
    }
    if args.worse_anchors:
        rows["anchors_corrupted"] = make_anchors(args, noise=0.1)
        rows["anchors_skewed"] = make_anchors(args, majority="maximum")
    args.output.mkdir(parents=True, exist_ok=True)
    for name, made in rows.items():
        task.as_dataset(made).to_parquet(args.output / f"{name}.parquet")


def asked(args: argparse.Namespace) -> list[str]:
    """The operations of anchors and test."""
    return args.operations if args.target is None else [args.target]


def make_pool(args: argparse.Namespace) -> list[task.Row]:
    """The pool, copies in random places."""
    seed = 1000 * args.seed + 1
    rows = task.clean_rows(args.pool_rows, "pool", seed + 1, args.operations)
    if args.majority is not None:
        rows = with_majority(args.pool_rows, "pool", seed + 1, args.operations, args.majority, args.majority_share)
    task.corrupt(rows, args.noise, args.corruptions, random.Random(seed))
    for row in rows:
        is_clean = row["kind"] == "clean"
        row |= {"is_clean": int(is_clean), "is_fit": int(is_clean and row["operation"] in asked(args))}
        row |= {"copy_group": None, "speckle": None}
    if args.copied_rows:
        plant_copies(rows, args.copied_rows, args.copies, args.near_copies, random.Random(seed + 2))
    return rows


def make_anchors(args: argparse.Namespace, noise: float = 0.0, majority: str | None = None) -> list[task.Row]:
    """The anchors; corrupted ones are never given another picture, whose scans would be the pool's."""
    seed = 1000 * args.seed + 4
    rows = task.clean_rows(args.anchor_rows, "anchors", seed, asked(args))
    if majority is not None:
        rows = with_majority(args.anchor_rows, "anchors", seed, args.operations, majority, 0.9)
    if noise:
        kinds = [kind for kind in args.corruptions if kind != "swapped_image"]
        # Exactly that share: so few rows would vary much.
        task.corrupt(rows[: round(noise * len(rows))], 1.0, kinds, random.Random(seed + 1))
    return rows


def with_majority(
    count: int, part: str, seed: int, operations: list[str], majority: str, share: float
) -> list[task.Row]:
    """Rows of which ``majority`` fills a share and the other operations the rest."""
    generator = random.Random(seed)
    others = [name for name in operations if name != majority]
    many = task.clean_rows(count, part, seed, [majority])
    few = task.clean_rows(count, part, seed + 500, others)
    return [(many if generator.random() < share else few)[place] for place in range(count)]


def plant_copies(rows: list[task.Row], copied: int, copies: int, near: bool, generator: random.Random) -> None:
    """Writes copies of some rows over others, clean and corrupted ones as they come."""
    places = generator.sample(range(len(rows)), copied * (copies + 1))
    originals, victims = places[:copied], places[copied:]
    for group, place in enumerate(originals):
        rows[place]["copy_group"] = group
    for number, place in enumerate(victims):
        rows[place] = dict(rows[originals[number // copies]])
        if near:
            rows[place]["speckle"] = 1000 * number + 7


if __name__ == "__main__":
    main()
