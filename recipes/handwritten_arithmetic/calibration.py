"""Does "hurts the anchors" hold its false-discovery rate? The truth is the utility for thousands of other anchors.

    python recipes/handwritten_arithmetic/calibration.py --model runs/bases/middling --output calibration.json

For each seed a pool is scored against 100 anchors, each row's utility for each of them kept; Benjamini and Hochberg's
procedure at 5 % calls rows that hurt. The same proxy then scores the same pool against 3,000 other anchors that were
drawn as the hundred were: the sign of that utility is the truth. Whether "corrupted" holds its rate, `ost-hf study`
says of every study with a `truth`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import types
from collections import defaultdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import study_data
import task

from ost_hf.evidence.verdicts import benjamini_hochberg, hurts_p
from ost_hf.runs.config import build_config
from ost_hf.runs.stage import run_stage
from ost_hf.study.provenance import machine, version_of_code
from ost_hf.study.statistics import mean_interval
from ost_hf.study.table import percent
from ost_hf.tables.score_table import ScoreTable


def main() -> None:
    """Scores, compares, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the proxy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[200, 201, 202, 203, 204])
    parser.add_argument("--utilities", nargs="+", default=["mean_cosine", "raw"])
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--pool_rows", type=int, default=1500)
    parser.add_argument("--truth_anchors", type=int, default=3000)
    parser.add_argument("--run_dir", type=Path, default=Path("runs/calibration"))
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    datasets.disable_progress_bars()
    results = [one(args, seed, utility) for utility in args.utilities for seed in args.seeds]
    report = {
        "command": shlex.join(["python", "recipes/handwritten_arithmetic/calibration.py", *sys.argv[1:]]),
        "pool_rows": args.pool_rows,
        **version_of_code(), "machine": machine(), "rate": args.rate, "truth_anchors": args.truth_anchors,
        "results": results,
    }  # fmt: skip
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=1) + "\n")
    for utility in args.utilities:
        print_summary(utility, [result for result in results if result["utility"] == utility])


def one(args: argparse.Namespace, seed: int, utility: str) -> dict[str, Any]:
    """False discoveries and power of one repetition."""
    folder = args.run_dir / Path(args.model).name / f"{utility}-{seed}"
    pool = make_data(args, seed, folder / "data")
    given = {
        "strategy": "one_step",
        "pool": {"path": str(folder / "data" / "pool.parquet")},
        "proxy": {"model": args.model, "warmup_learning_rate": 1e-3, "seed": seed},
        "scoring": {"one_step": {"utility": utility}, "seed": seed},
    }
    tables = {}
    for name in ("anchors", "truth"):
        anchors = {"path": str(folder / "data" / f"{name}.parquet")}
        scoring = {**given["scoring"], "per_anchor": name == "anchors"}
        config = build_config({**given, "run_dir": str(folder / name), "anchors": anchors, "scoring": scoring})
        if name == "truth" and not (config.folder / "proxy").exists():
            shutil.copytree(folder / "anchors" / "proxy", config.folder / "proxy")
        run_stage(config, "score")
        tables[name] = ScoreTable(config.folder / "scores").read()
    per_anchor = np.asarray(tables["anchors"]["anchor_utilities"].to_pylist())
    truly_hurts = tables["truth"]["utility"].to_numpy() < 0
    called = benjamini_hochberg(hurts_p(per_anchor, seed=seed), args.rate)
    by_kind: dict[str, dict[str, int]] = defaultdict(lambda: {"rows": 0, "hurt": 0, "called": 0, "found": 0})
    for row, hurts, is_called in zip(pool, truly_hurts, called, strict=True):
        counts = by_kind[row["kind"]]
        counts["rows"] += 1
        counts["hurt"] += int(hurts)
        counts["called"] += int(is_called)
        counts["found"] += int(hurts and is_called)
    return {"utility": utility, "seed": seed, "by_kind": dict(by_kind)}


def make_data(args: argparse.Namespace, seed: int, folder: Path) -> list[task.Row]:
    """Writes pool, anchors and the truth's anchors; returns the pool."""
    settings = types.SimpleNamespace(
        seed=seed, pool_rows=args.pool_rows, noise=0.5, majority=None, target=None, copied_rows=0, anchor_rows=100,
        operations=list(task.OPERATIONS), corruptions=list(task.CORRUPTIONS),
    )  # fmt: skip
    pool, anchors = study_data.make_pool(settings), study_data.make_anchors(settings)
    seen = {(row["left_scan"], row["right_scan"], row["operation"]) for row in anchors}
    drawn = task.clean_rows(2 * args.truth_anchors, "anchors", 1000 * seed + 7, settings.operations)
    others = [row for row in drawn if (row["left_scan"], row["right_scan"], row["operation"]) not in seen]
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("pool", pool), ("anchors", anchors), ("truth", others[: args.truth_anchors])):
        task.as_dataset(rows).to_parquet(folder / f"{name}.parquet")
    return pool


def print_summary(utility: str, results: list[dict[str, Any]]) -> None:
    """The false-discovery rate and the power by kind, means over seeds."""
    power: dict[str, list[float]] = defaultdict(list)
    for result in results:
        for kind, count in result["by_kind"].items():
            if count["hurt"]:
                power[kind].append(count["found"] / count["hurt"])
    print(
        f"{utility}: false discoveries {percent(mean_interval(false_discoveries(results)))} of what was called hurting"
    )
    for kind, values in sorted(power.items()):
        hurt = sum(result["by_kind"].get(kind, {}).get("hurt", 0) for result in results)
        print(f"  {kind}: found {percent(mean_interval(values))} of those that hurt ({hurt} rows over all seeds)")


def false_discoveries(results: list[dict[str, Any]]) -> list[float]:
    """Of the rows that each repetition calls hurting, the share that does not hurt."""
    shares = []
    for result in results:
        counts = result["by_kind"].values()
        called, found = (sum(count[name] for count in counts) for name in ("called", "found"))
        shares.append((called - found) / max(1, called))
    return shares


if __name__ == "__main__":
    main()
