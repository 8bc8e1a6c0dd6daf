"""Scores a pool: any number of processes, resumable, one table."""

from __future__ import annotations

import gc
import json
import logging
import math
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ost_hf.data.anchors import find_overlap
from ost_hf.data.config import EncodingConfig
from ost_hf.data.encoding import Encoded, EncodedDataset, Encoder
from ost_hf.data.rows import Rows
from ost_hf.errors import DataError, RunDirectoryError
from ost_hf.models import load_processing_class
from ost_hf.parallel import barrier, is_main, share, state
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import Proxy, build_proxy, load_proxy, read_origin, save_proxy
from ost_hf.proxy.warmup import warm_up
from ost_hf.scorers.base import Scorer, build_scorer
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.score_table import ScoreTable, name_differences

logger = logging.getLogger(__name__)

Record = dict[str, Any]

# These change speed and memory, not what is computed: a run may be resumed with others.
_NOT_IDENTITY = ("batch_size", "anchor_batch_size", "part_size", "num_workers")

# Batches among whose rows those of like length are put together.
_WINDOW_BATCHES = 8


def score_pool(
    run_dir: str | Path,
    pool: Rows,
    anchors: Rows | None,
    proxy: ProxyConfig,
    scoring: ScoringConfig | None = None,
    encoding: EncodingConfig | None = None,
    overlap: str = "error",
) -> ScoreTable:
    """Scores every row of a pool and writes ``run_dir/scores`` (and ``run_dir/proxy``).

    Called on every process of the run. What the folder holds already is kept: a run that was killed
    continues, with any number of processes.

    Args:
        run_dir: The run directory.
        pool: The candidates.
        anchors: The anchor set; only a scorer that asks no anchors does without.
        proxy: The proxy and its warm-up.
        scoring: The scorer and the loop.
        encoding: How rows become tokens.
        overlap: Anchors found in the pool: ``error``, or ``drop`` to give those rows a status.

    Returns:
        The complete score table.

    Raises:
        DataError: If anchors are needed and missing, stand in the pool, or cannot be used.
        RunDirectoryError: If the folder holds scores of another configuration or dataset.
    """
    scoring, encoding = scoring or ScoringConfig(), encoding or EncodingConfig()
    if anchors is None and scoring.scorer != "random":
        raise DataError(
            f"the {scoring.scorer} scorer needs anchors: a small clean set that stands for the target tasks"
        )
    pool.hash_together()
    exclude = find_overlap(pool, anchors, overlap) if anchors is not None else set()
    table = ScoreTable(Path(run_dir) / "scores")
    _open(table, _identity(pool, anchors, proxy, scoring, encoding, overlap), len(pool))

    remaining = sorted(set(range(len(pool))) - table.rows_done())
    if not remaining:
        logger.info("all %d rows are scored already", len(pool))
        return table
    encoded = EncodedDataset(pool, Encoder(load_processing_class(proxy), encoding))
    if scoring.scorer == "random":
        scorer = build_scorer(scoring.scorer, config=scoring)
        run_scorer(scorer, encoded, table, remaining, exclude, scoring)
    else:
        assert anchors is not None
        warm = _prepare_proxy(Path(run_dir) / "proxy", proxy, encoded, exclude)
        anchor_set = EncodedDataset(anchors, encoded.encoder)
        scorer = build_scorer(scoring.scorer, config=scoring, proxy=warm, anchors=anchor_set)
        run_scorer(scorer, encoded, table, remaining, exclude, scoring)
        del scorer, warm
        free_memory()
    statuses = Counter(table.read()["status"].to_pylist())
    if is_main():
        logger.info("scored %d rows: %s", len(pool), ", ".join(f"{n} {s}" for s, n in statuses.most_common()))
    return table


def run_scorer(
    scorer: Scorer,
    pool: EncodedDataset,
    table: ScoreTable,
    rows: list[int],
    exclude: set[int],
    config: ScoringConfig,
) -> None:
    """The loop: encodes ``rows``, scores them, writes part after part.

    The rows are cut into parts in the same way on every process; each takes every n-th part.

    Args:
        scorer: Gives the numbers.
        pool: The candidates, encoded for the scorer's model.
        table: Where parts go.
        rows: What is missing in the table.
        exclude: Rows that stand in the table with the status ``anchor_overlap``.
        config: Part size and workers.
    """
    # Every process must have seen what was missing before anyone adds to it.
    barrier()
    # Smaller parts where the default would leave a process without work.
    size = max(1, min(config.part_size, math.ceil(len(rows) / state().num_processes)))
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    mine = share(parts)
    stream = _encode([row for part in mine for row in part], pool, exclude, config.num_workers)
    progress = tqdm(total=len(rows), desc="scoring", unit="row", smoothing=0.1, disable=not is_main())
    for part in mine:
        table.write_part(_score_part(scorer, islice(stream, len(part))))
        # Counting finished files speaks of all processes, without a message between them.
        progress.update(sum(len(p) for p in parts if (table.folder / table.part_name(p)).exists()) - progress.n)
    barrier()
    progress.update(len(rows) - progress.n)
    progress.close()


def free_memory() -> None:
    """Gives the accelerator's cached memory back after a model was dropped."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class _Statused(Dataset[Encoded]):
    """Encodes rows in loader workers; excluded ones are not even read."""

    def __init__(self, rows: list[int], pool: EncodedDataset, exclude: set[int]):
        self.rows, self.pool, self.exclude = rows, pool, exclude

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Encoded:
        row = self.rows[index]
        if row in self.exclude:
            detail = "the row is also an anchor"
            return Encoded(self.pool.rows.example_ids[row], row, "anchor_overlap", detail)
        return self.pool.encode(row)


def _encode(rows: list[int], pool: EncodedDataset, exclude: set[int], num_workers: int) -> Iterator[Encoded]:
    for row in DataLoader(_Statused(rows, pool, exclude), batch_size=None, num_workers=num_workers):
        if num_workers and row.features is not None:
            # A tensor from a worker holds an open file as long as it lives; a copy holds none.
            row = replace(row, features={name: tensor.clone() for name, tensor in row.features.items()})
        yield row


def _score_part(scorer: Scorer, part: Iterator[Encoded]) -> list[Record]:
    """One record per row. A few batches' rows are encoded at a time: images of a whole part could fill the memory."""
    records: dict[int, Record] = {}
    while window := list(islice(part, _WINDOW_BATCHES * scorer.batch_size)):
        records |= _score_window(scorer, window)
    return [records[key] for key in sorted(records)]


def _score_window(scorer: Scorer, window: Iterable[Encoded]) -> dict[int, Record]:
    """Records by row. Rows of like length share a batch, which saves padding."""
    records = {row.row: _record(row) for row in window}
    usable = sorted((row for row in window if row.features is not None), key=lambda row: (row.length, row.row))
    for start in range(0, len(usable), scorer.batch_size):
        batch = usable[start : start + scorer.batch_size]
        for row, score in zip(batch, scorer.score(batch), strict=True):
            record = records[row.row]
            record["loss"] = score.loss if score.loss is None or math.isfinite(score.loss) else None
            numbers = [score.utility] + ([] if score.loss is None else [score.loss])
            if all(math.isfinite(number) for number in numbers):
                record |= {"utility": score.utility, "utility_se": score.utility_se, **score.columns}
            else:
                record |= {"status": "non_finite", "detail": f"utility {score.utility}, loss {score.loss}"}
    return records


def _record(row: Encoded) -> Record:
    return {
        "example_id": row.example_id,
        "row": row.row,
        "utility": None,
        "utility_se": None,
        "loss": None,
        "tokens": row.tokens,
        "status": row.status,
        "detail": row.detail,
    }


def _open(table: ScoreTable, identity: Record, rows: int) -> None:
    """Checks or writes the manifest; every process raises if it is another run's."""
    exists = table.check_manifest(identity)
    barrier()
    if not exists and is_main():
        names = ("ost-hf", "torch", "transformers", "accelerate", "peft", "datasets")
        versions = {"python": platform.python_version(), **{name: version(name) for name in names}}
        table.write_manifest(identity, rows=rows, versions=versions)
    barrier()


def _identity(
    pool: Rows,
    anchors: Rows | None,
    proxy: ProxyConfig,
    scoring: ScoringConfig,
    encoding: EncodingConfig,
    overlap: str,
) -> Record:
    identity = {
        "pool": pool.fingerprint,
        "anchors": anchors.fingerprint if anchors is not None else None,
        "overlap": overlap,
        "scoring": {key: value for key, value in asdict(scoring).items() if key not in _NOT_IDENTITY},
        "proxy": asdict(proxy),
        "encoding": asdict(encoding),
    }
    return json.loads(json.dumps(identity))


def _prepare_proxy(folder: Path, config: ProxyConfig, pool: EncodedDataset, exclude: set[int]) -> Proxy:
    """The stored proxy of this run, or a new one, warmed up and stored.

    Raises:
        RunDirectoryError: If the stored one was made of another pool or with other settings.
    """
    origin = json.loads(
        json.dumps(
            {
                "proxy": asdict(config),
                "pool": pool.rows.fingerprint,
                "encoding": asdict(pool.encoder.config),
                "excluded_rows": sorted(exclude),
            }
        )
    )
    stored = (folder / "proxy.json").exists()
    barrier()
    if stored:
        differences = name_differences(read_origin(folder), origin)
        if differences:
            raise RunDirectoryError(
                f"{folder} holds a proxy of another run: {'; '.join(differences)}. "
                "Choose another run_dir, or remove the folder to make the proxy again"
            )
        return load_proxy(folder)
    proxy = build_proxy(config)
    warm_up(proxy, pool, exclude)
    if is_main():
        save_proxy(proxy, folder, origin)
        logger.info("proxy: %s", proxy.report())
    barrier()
    return proxy
