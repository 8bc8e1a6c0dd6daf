"""What selection costs: passes of the proxy, trainings, steps, seconds and memory, at several sizes of a pool.

    OMP_NUM_THREADS=1 python scripts/measure_cost.py --base runs/bases/middling --rows 3000 12000 48000
    python scripts/measure_cost.py --rows 3000 12000 --name thorough --strategy thorough

Pools are handwritten arithmetic, half of it corrupted. Each is scored by `ost-hf score` in a process of its own, with
the settings of the recipe and whatever flags of that command are given here. A size that the output holds already is
not measured again; another variant has another `--name`. Beside the output, `cost_page.py` makes a page of it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "handwritten_arithmetic"))

import task
from cost_page import fits, page, totals

from ost_hf.cli.flags import read_words
from ost_hf.doctor.plan import planned_cost
from ost_hf.files import write_json
from ost_hf.runs.config import RunConfig, load_config, read_yaml
from ost_hf.runs.yaml_values import dump_yaml
from ost_hf.scoring.config import DEFAULT_SCORER
from ost_hf.scoring.second_look.cost import planned_parts
from ost_hf.study.provenance import machine, version_of_code
from ost_hf.tables.score_table import ScoreTable

# The anchors' seed is the pool's and this; their scans are others anyway.
_OF_ANCHORS = 1000

Record = dict[str, Any]


def main() -> None:
    """Measures what is missing, writes and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--base", default="ost_hf/checkpoints/tiny_qwen3_vl", help="the proxy's base model")
    parser.add_argument("--rows", type=int, nargs="*", default=[3000, 12000, 48000], help="sizes of the pool")
    parser.add_argument("--at", type=int, nargs="*", default=[100_000], help="sizes that are planned, not measured")
    parser.add_argument("--anchors", type=int, default=100)
    parser.add_argument("--noise", type=float, default=0.5, help="share of the pool that is corrupted")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lora_steps", type=int, default=20, help="steps of the LoRA training that is compared with")
    parser.add_argument("--name", default="auto", help="what the page calls these settings")
    parser.add_argument("--run_dir", type=Path, default=Path("runs/cost"), help="emptied size by size")
    parser.add_argument("--output", type=Path, default=Path("docs/results/cost.json"))
    parser.add_argument("--child", choices=["score", "lora"], help=argparse.SUPPRESS)
    args, given = parser.parse_known_args()
    if args.child is not None:
        {"score": score, "lora": train_lora}[args.child](args)
        return
    report = json.loads(args.output.read_text()) if args.output.exists() else {"variants": {}}
    settings = settings_of(args, given)
    variant = report["variants"].setdefault(args.name, {"settings": settings, "given": given, "sizes": []})
    if variant["settings"] != settings:
        parser.error(f"{args.output} has a variant {args.name!r} with other settings: choose another --name")
    for rows in sorted(set(args.rows) - {size["pool_rows"] for size in variant["sizes"]}):
        folder = args.run_dir / args.name / str(rows)
        make_run(args, given, rows, folder)
        if "lora" not in variant:
            variant["lora"] = in_a_process("lora", folder, args.lora_steps)
        variant["sizes"] = sorted([*variant["sizes"], measured(rows, folder)], key=lambda size: size["pool_rows"])
        write(report, args, given)
        shutil.rmtree(folder)
    write(report, args, given)
    print(page(report))


def settings_of(args: argparse.Namespace, given: list[str]) -> Record:
    """All that decides what is counted, but the pool's size."""
    resolved = configured(args, given, args.run_dir).resolved()
    own = {"base": args.base, "anchors": args.anchors, "noise": args.noise, "seed": args.seed}
    sections = ("strategy", "duplicates", "encoding", "proxy", "scoring")
    return json.loads(json.dumps({**own, **{name: resolved[name] for name in sections}}))


def configured(args: argparse.Namespace, given: list[str], folder: Path) -> RunConfig:
    """The recipe's sections for scoring, with this base, a folder's files and these flags."""
    recipe = read_yaml(str(Path(task.__file__).with_name("run.yaml")))
    sections = {name: recipe[name] for name in ("encoding", "proxy", "scoring")}
    sections["proxy"]["model"] = args.base
    sections |= {name: {"path": str(folder / f"{name}.parquet")} for name in ("pool", "anchors")}
    words = read_words(["score", *given])
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(dump_yaml(sections))
        file.flush()
        return load_config(file.name, words.overrides, str(folder), words.imports)


def make_run(args: argparse.Namespace, given: list[str], rows: int, folder: Path) -> None:
    """Writes the pool, the anchors and the configuration of a size; what was begun there goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    pool = task.pool_rows(rows, args.seed, args.noise)
    anchors = task.clean_rows(args.anchors, "anchors", args.seed + _OF_ANCHORS)
    for name, records in (("pool", pool), ("anchors", anchors)):
        if not (folder / f"{name}.parquet").exists():
            task.as_dataset(records).to_parquet(folder / f"{name}.parquet")
    configured(args, given, folder).write()


def measured(rows: int, folder: Path) -> Record:
    """Scores a pool in a process of its own, and tells what it took."""
    memory = in_a_process("score", folder)
    command = shlex.join(["python", "scripts/measure_cost.py", *sys.argv[1:]])
    cost = ScoreTable(folder / "scores").manifest()["cost"]
    if cost["passes"] is None:
        raise SystemExit("the scorer does not say what a row takes: there is nothing to count")
    return {
        "pool_rows": rows, "cost": cost, "memory": memory, "command": command,
        **version_of_code(), "machine": machine(),
    }  # fmt: skip


def planned(args: argparse.Namespace, given: list[str]) -> list[Record]:
    """What the doctor would plan for the sizes that are not measured, where it knows all that is done."""
    config = configured(args, given, args.run_dir)
    scoring, plans = config.scoring, []
    assert config.proxy is not None
    if scoring.scorer != DEFAULT_SCORER:
        return []
    for rows in args.at:
        stage = None
        if scoring.second_stage == "second_look":
            stage = planned_parts(rows, args.anchors, scoring.stage_options)
        plans.append(planned_cost(scoring, config.proxy, rows, args.anchors, stage))
    return [plan for plan in plans if plan is not None]


def in_a_process(job: str, folder: Path, steps: int = 0) -> Record:
    """Does a job of :func:`main` in a process that holds nothing else, and reads what it wrote."""
    words = ["--child", job, "--run_dir", str(folder), "--lora_steps", str(steps)]
    subprocess.run([sys.executable, __file__, *words], check=True, env={**os.environ, "TQDM_DISABLE": "1"})
    return json.loads((folder / f"{job}.json").read_text())


def score(args: argparse.Namespace) -> None:
    """Scores the run directory's pool; writes the memory that it took."""
    import logging

    import ost_hf.scoring.runner
    from ost_hf.runs.stage import run_stage

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    assert ost_hf.scoring.runner  # imported before memory is read
    before = peak_mebibytes()
    run_stage(load_config(None, {}, str(args.run_dir)), "score")
    write_json(args.run_dir / "score.json", memory(before))


def train_lora(args: argparse.Namespace) -> None:
    """Trains the proxy's adapter for a few steps on the run directory's pool; writes time and memory."""
    from ost_hf.data.encoding import Encoder
    from ost_hf.data.encoding.dataset import EncodedDataset
    from ost_hf.data.rows import Rows
    from ost_hf.models import load_processing_class
    from ost_hf.proxy.model import build_proxy
    from ost_hf.proxy.training import TrainingPlan, shuffled_batches, train
    from ost_hf.scoring.clock import now

    config = load_config(None, {}, str(args.run_dir))
    assert config.pool is not None and config.proxy is not None
    before = peak_mebibytes()
    pool = EncodedDataset(Rows.load(config.pool), Encoder(load_processing_class(config.proxy), config.encoding))
    proxy, size = build_proxy(config.proxy), config.proxy.warmup_batch_size
    batches = shuffled_batches(range(len(pool)), size, args.lora_steps, config.proxy.seed)
    plan = TrainingPlan(batches, [config.proxy.warmup_learning_rate] * len(batches), name="LoRA training")
    moments = [now()]
    train(proxy.model, proxy.parameters.values(), pool, plan, after_step=lambda _: moments.append(now()))
    seconds = statistics.median(after - begun for begun, after in pairwise(moments))
    write_json(args.run_dir / "lora.json", {"seconds_per_row": seconds / size, "memory": memory(before)})


def memory(before: int) -> Record:
    """Memory of this process: what it held before the work, the most it held, and the most on an accelerator."""
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        "before": before,
        "most": peak_mebibytes(),
        "on_accelerator": torch.cuda.max_memory_allocated() // 2**20 if on_gpu else None,
    }


def peak_mebibytes() -> int:
    """The most memory this process has held, on Linux."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) // 1024 if found else 0


def write(report: Record, args: argparse.Namespace, given: list[str]) -> None:
    """Writes the measurements, with what follows from them, and the page: a long run may end early."""
    for variant in report["variants"].values():
        variant["fits"] = fits(variant["sizes"])
    variant = report["variants"][args.name]
    variant["totals"] = totals([size["cost"] for size in variant["sizes"]], planned(args, given))
    write_json(args.output, report, indent=1)
    args.output.with_suffix(".md").write_text(page(report))


if __name__ == "__main__":
    main()
