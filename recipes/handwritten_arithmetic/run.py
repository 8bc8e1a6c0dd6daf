"""Handwritten arithmetic from a noisy pool to a table: base, everything, a random half, the OST half.

    python recipes/handwritten_arithmetic/run.py --run_dir runs/demo
    python recipes/handwritten_arithmetic/run.py --run_dir runs/three --seeds 10 11 12

Every arm is a run directory that `ost-hf run --config RUN_DIR/config.yaml` replays; the OST arm is `--run_dir`
itself (with several seeds, `seed-N` in it), the others are in its folder `baselines`.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import task
import transformers
from report import as_table, mean_and_interval
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.proxy.model import load_proxy
from ost_hf.runs.config import RunConfig, build_config
from ost_hf.runs.stage import run_stage
from ost_hf.runs.whole import run_whole
from ost_hf.runs.yaml_values import parse_yaml
from ost_hf.scorers.protocol import columns_of
from ost_hf.scorers.registry import SCORERS
from ost_hf.selection.kept import read_selection
from ost_hf.tables.score_table import ScoreTable

HERE = Path(__file__).parent
TEST_SEED = 99


def main() -> None:
    """Runs all arms for all seeds and writes ``summary.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run_dir", type=Path, default=Path("runs/demo"))
    parser.add_argument("--config", type=Path, default=HERE / "run.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one full repetition each")
    parser.add_argument("--pool_rows", type=int, default=3000)
    parser.add_argument("--anchor_rows", type=int, default=100)
    parser.add_argument("--test_rows", type=int, default=600)
    parser.add_argument("--agreement_rows", type=int, default=100, help="rows on which `exact` is compared")
    parser.add_argument("--max_steps", type=int, help="optimizer steps of each training, in place of the YAML's")
    parser.add_argument("--also_raw", action="store_true", help="also report the AUC of the raw utilities")
    parser.add_argument("--clean", action="store_true", help="remove the run directory of an earlier demo first")
    args = parser.parse_args()
    if args.clean and (args.run_dir / "summary.json").exists():
        shutil.rmtree(args.run_dir)
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    started = time.perf_counter()
    results = []
    for seed in args.seeds:
        run_dir = args.run_dir if len(args.seeds) == 1 else args.run_dir / f"seed-{seed}"
        results.append(one_seed(args, seed, run_dir))
    summary = combine(results, args.seeds)
    summary["seconds"] = round(time.perf_counter() - started, 1)
    (args.run_dir / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(as_table(summary))


def one_seed(args: argparse.Namespace, seed: int, run_dir: Path) -> dict[str, Any]:
    """All arms with one seed for pool, anchors, proxy and training."""
    data = make_data(args, seed, run_dir / "data")
    given = parse_yaml(args.config.read_text(), str(args.config))
    for section, path in data.items():
        given[section] = {**given[section], "path": str(path)}
    for section in ("proxy", "training"):
        given[section] = {**given[section], "seed": seed}
    if args.max_steps is not None:
        given["training"]["max_steps"] = args.max_steps
    random_scores = {"scorer": "random", "seed": seed}
    baselines = run_dir / "baselines"
    arms = {
        "full": {"run_dir": str(baselines / "full"), "scoring": random_scores, "selection": {"keep_ratio": 1.0}},
        "random": {"run_dir": str(baselines / "random"), "scoring": random_scores},
        "ost": {"run_dir": str(run_dir)},
    }
    result: dict[str, Any] = {"base": evaluate_base(given, baselines / "base")}
    kinds = Rows.load(build_config({**given, "run_dir": str(run_dir)}).pool).dataset["kind"]
    for name, changes in arms.items():
        config = build_config({**given, **changes})
        logging.info("== seed %d, %s", seed, name)
        run_whole(config)
        result[name] = describe(config, list(kinds))
    result["auc"] = auc(run_dir, list(kinds))
    result["auc_low_loss"] = auc(run_dir, list(kinds), column="loss", sign=-1)
    for rule in ("adamw", "sgd") if args.also_raw else ():
        scoring = {**given["scoring"], "one_step": {"utility": "raw", "update_rule": rule}}
        config = build_config({**given, "run_dir": str(baselines / f"raw_{rule}"), "scoring": scoring})
        run_stage(config, "score")
        result[f"auc_raw_{rule}"] = auc(config.folder, list(kinds))
    result["spearman_exact_first_order"] = agreement(
        build_config({**given, "run_dir": str(run_dir)}), args.agreement_rows
    )
    return result


def make_data(args: argparse.Namespace, seed: int, folder: Path) -> dict[str, Path]:
    """Writes pool, anchors and test rows as Parquet; the test rows are the same for every seed."""
    rows = {
        "pool": task.pool_rows(args.pool_rows, 1000 * seed + 1),
        "anchors": task.clean_rows(args.anchor_rows, "anchors", 1000 * seed + 2),
        "evaluation": task.clean_rows(args.test_rows, "test", TEST_SEED),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = {section: folder / f"{section}.parquet" for section in rows}
    for section, path in paths.items():
        task.as_dataset(rows[section]).to_parquet(path)
    return paths


def evaluate_base(given: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    """The checkpoint before any fine-tuning."""
    evaluation = {**given["evaluation"], "model": given["target"]["model"]}
    config = build_config({**given, "run_dir": str(run_dir), "evaluation": evaluation})
    run_stage(config, "evaluate")
    return {"exact_match": metrics_of(run_dir)["exact_match"], "rows": 0, "corrupted_share": None}


def describe(config: RunConfig, kinds: list[str]) -> dict[str, Any]:
    """What an arm kept and what its target can do."""
    kept = read_selection(config.folder).kept["row"].to_pylist()
    corrupted = sum(kinds[row] != "clean" for row in kept)
    kept_kinds, pool_kinds = Counter(kinds[row] for row in kept), Counter(kinds)
    return {
        "exact_match": metrics_of(config.folder)["exact_match"],
        "rows": len(kept),
        "corrupted_share": corrupted / len(kept),
        "kept_by_kind": {kind: kept_kinds[kind] / count for kind, count in sorted(pool_kinds.items())},
    }


def metrics_of(run_dir: Path) -> dict[str, Any]:
    """``metrics.json`` of an arm."""
    return json.loads((run_dir / "metrics.json").read_text())


def auc(run_dir: Path, kinds: list[str], column: str = "utility", sign: int = 1) -> float:
    """How well a column of the score table ranks clean rows above corrupted ones."""
    values = ScoreTable(run_dir / "scores").read()[column].to_pylist()
    scored = [row for row, value in enumerate(values) if value is not None]
    return float(roc_auc_score([kinds[row] == "clean" for row in scored], [sign * values[row] for row in scored]))


def agreement(config: RunConfig, count: int) -> float:
    """Spearman correlation of `exact` and first-order raw utility on rows drawn at random."""
    proxy = load_proxy(config.folder / "proxy")
    encoder = Encoder(proxy.processing_class, config.encoding)
    pool = EncodedDataset(Rows.load(config.pool), encoder)
    anchors = EncodedDataset(Rows.load(config.anchors), encoder)
    sample = task.random.Random(0).sample(range(len(pool)), min(count, len(pool)))
    batch = [encoded for encoded in map(pool.encode, sample) if encoded.features is not None]
    utilities = []
    for estimator in ("exact", "reverse"):
        scoring = config.scoring.without_extras().with_options(estimator=estimator, utility="raw")
        build = SCORERS.find(scoring.scorer).build
        scorer = build(config=scoring, options=scoring.options, proxy=proxy, anchors=anchors, pool=pool)
        utilities.append(columns_of(scorer, batch)["utility"])
    return float(spearmanr(*utilities).statistic)


def combine(results: list[dict[str, Any]], seeds: list[int]) -> dict[str, Any]:
    """Means over the seeds, with 95 % intervals and the single results where there are several."""
    summary: dict[str, Any] = {"seeds": seeds}
    for arm in ("base", "full", "random", "ost"):
        shares = [result[arm]["corrupted_share"] for result in results]
        summary[arm] = {
            **mean_and_interval("exact_match", [result[arm]["exact_match"] for result in results]),
            "rows": results[0][arm]["rows"],
            "corrupted_share": None if shares[0] is None else sum(shares) / len(shares),
        }
    kinds = results[0]["ost"]["kept_by_kind"]
    summary["ost"]["kept_by_kind"] = {
        kind: sum(result["ost"]["kept_by_kind"].get(kind, 0.0) for result in results) / len(results) for kind in kinds
    }
    for key in (key for key in results[0] if key.startswith(("auc", "spearman"))):
        summary |= mean_and_interval(key, [result[key] for result in results])
    for arm in ("random", "full"):
        gains = [100 * (result["ost"]["exact_match"] - result[arm]["exact_match"]) for result in results]
        summary |= mean_and_interval(f"points_over_{arm}", gains)
    return summary if len(seeds) == 1 else {**summary, "per_seed": dict(zip(map(str, seeds), results, strict=True))}


if __name__ == "__main__":
    main()
