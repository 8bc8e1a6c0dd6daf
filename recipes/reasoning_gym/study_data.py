"""Pool, anchors and test rows of one repetition of a study.

    python recipes/reasoning_gym/study_data.py --output runs/data --seed 110

The pool says of each row what was done to it (`kind`, `is_clean`), and whether anchors and test ask for such rows
(`is_fit`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import datasets
import task

TEST_SEED = 99


def parse_args() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--noise", type=float, default=0.5, help="share of corrupted rows in the pool")
    parser.add_argument(
        "--target", default=None, choices=list(task.TASKS),
        help="anchors and test are of this task alone; the pool's `is_fit` says which rows are clean and of it",
    )  # fmt: skip
    parser.add_argument("--pool_rows", type=int, default=3000)
    parser.add_argument("--anchor_rows", type=int, default=100)
    parser.add_argument("--test_rows", type=int, default=400)
    return parser.parse_args()


def main() -> None:
    """Writes three Parquet files."""
    args = parse_args()
    datasets.disable_progress_bars()
    seed = 1000 * args.seed + 1
    asked = list(task.TASKS) if args.target is None else [args.target]
    pool = task.pool_rows(args.pool_rows, seed, args.noise)
    rows = {
        "pool": [{**row, "is_fit": int(row["is_clean"] and row["task"] in asked)} for row in pool],
        "anchors": task.clean_rows(args.anchor_rows, "anchors", seed + 3, asked),
        # The same test rows for every repetition.
        "test": task.clean_rows(args.test_rows, "test", TEST_SEED, asked),
    }
    args.output.mkdir(parents=True, exist_ok=True)
    for name, made in rows.items():
        task.as_dataset(made).to_parquet(args.output / f"{name}.parquet")


if __name__ == "__main__":
    main()
