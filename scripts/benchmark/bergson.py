"""The same job by bergson, a library for gradient attribution, through its own command line.

Both score the same tokens, given as token numbers, with the same LoRA under the same token budget, in float32, by
the inner product of each row's gradient with the mean anchor gradient; theirs also writes its scores. A process of
bergson's spends seconds on imports and loading, so each round runs it on few rows and on many, and the difference
counts; ours is taken in the same way, in one process that stays.

Install beside this package: ``pip install --no-deps "bergson>=2.5"`` and the small packages that it imports
(jaxtyping, wadler-lindig, ml_dtypes, natsort, petname, simple-parsing, docstring-parser, torchopt, optree, graphviz).
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.contestants import Lineup, in_order
from benchmark.measuring import seconds
from benchmark.presets import PRESETS, ROOT, Case, Row
from ost_hf.evidence.rank_correlation import spearman

FOLDER = ROOT / "runs" / "benchmark" / "bergson"
BATCH_TOKENS = 512


def against_bergson(rounds: int, smoke: bool = False) -> dict[str, Any]:
    """Throughput of both, all layers adapted on both sides; our last quarter beside it, which is another job.

    Raises:
        SystemExit: If bergson is not installed.
    """
    try:
        found = version("bergson")
    except PackageNotFoundError:
        raise SystemExit(f"bergson is not installed.\n{__doc__}") from None
    few, many = (2, 4) if smoke else (8, 32)
    preset = PRESETS["smollm2"]
    sizes = dataclasses.replace(preset.sizes, candidates=many, batch_tokens=BATCH_TOKENS)
    whole, quarter = (Lineup(preset.build(sizes, layers), sizes) for layers in (None, preset.last_quarter(sizes)))
    _store(whole.case, "adapter")
    _write_rows("anchors", whole.case.anchors[: sizes.anchors])
    rows = {count: whole.case.candidates[:count] for count in (few, many)}
    for count, some in rows.items():
        _write_rows(f"pool{count}", some)
    _bergson("reduce", "query", "anchors", ["--precision", "fp32", "--aggregation", "mean"])
    ours = {"all": whole, "quarter": quarter}
    directions = {name: lineup.directions("raw") for name, lineup in ours.items()}
    taken: dict[str, list[float]] = {"bergson": [], "all": [], "quarter": []}
    for name, lineup in ours.items():  # kernels and caches warm before the clock runs, as in a long run
        lineup.reverse(directions[name], lineup.case.batches(rows[few], BATCH_TOKENS))
    for _ in range(rounds):
        once: dict[str, dict[int, float]] = {name: {} for name in taken}
        for count in (few, many):
            once["bergson"][count] = _bergson(
                "score", f"scores{count}", f"pool{count}", ["--query_path", str(FOLDER / "query"), *_FLOAT32]
            )
            for name, lineup in ours.items():
                once[name][count] = seconds(
                    lambda n=name, line=lineup, some=rows[count]: line.reverse(
                        directions[n], line.case.batches(some, BATCH_TOKENS)
                    )
                )
        for name, times in once.items():
            taken[name].append(times[many] - times[few])
    tokens = sum(len(row["input_ids"]) for row in rows[many][few:])
    batches = whole.case.batches(rows[many], BATCH_TOKENS)
    utilities = in_order(rows[many], whole.reverse(directions["all"], batches))
    return {
        "bergson_version": float(".".join(found.split(".")[:2])),
        **{f"tokens_per_second.{name}": tokens / statistics.median(times) for name, times in taken.items()},
        "over_bergson.same_layers": _ratio(taken["bergson"], taken["all"]),
        "over_bergson.unequal_our_last_quarter_against_all_layers": _ratio(taken["bergson"], taken["quarter"]),
        "spearman_with_bergson": spearman(utilities.tolist(), _scores(FOLDER / f"scores{many}")),
    }


_FLOAT32 = ["--index_cfg.precision", "fp32", "--score_cfg.precision", "fp32"]


def _ratio(theirs: list[float], ours: list[float]) -> dict[str, float]:
    values = [a / b for a, b in zip(theirs, ours, strict=True)]
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def _store(case: Case, name: str) -> None:
    """The adapter with its tokenizer; bergson takes it for a model and asks for the gradients of its LoRA alone."""
    case.proxy.model.save_pretrained(FOLDER / name, save_embedding_layers=False)
    case.proxy.processing_class.save_pretrained(FOLDER / name)


def _write_rows(name: str, rows: list[Row]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.jsonl").open("w") as file:
        for row in rows:
            record: dict[str, Any] = {key: row[key].tolist() for key in ("input_ids", "labels")}
            file.write(json.dumps(record | {"length": len(record["input_ids"])}) + "\n")


def _bergson(command: str, out: str, dataset: str, more: list[str]) -> float:
    """Runs one command of bergson's and returns its wall-clock seconds."""
    words = [sys.executable, "-m", "bergson", command, str(FOLDER / out), "--overwrite"]
    words += ["--model", str(FOLDER / "adapter"), "--dataset", str(FOLDER / f"{dataset}.jsonl")]
    words += ["--projection_dim", "0", "--token_batch_size", str(BATCH_TOKENS), "--nproc_per_node", "1"]
    words += ["--loss_reduction", "mean", *more]
    start = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bergson failed: {' '.join(words)}\n{done.stderr[-3000:]}")
    return time.perf_counter() - start


def _scores(folder: Path) -> list[float]:
    info = json.loads((folder / "info.json").read_text())
    dtype = np.dtype({key: info["dtype"][key] for key in ("names", "formats", "offsets", "itemsize")})
    return np.memmap(folder / "scores.bin", dtype=dtype, mode="r")["score_0"].tolist()
