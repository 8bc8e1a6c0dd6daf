"""A second look at every row, with proxies that have learnt from what was found before.

The one-step utility of a young proxy finds much of the noise, but not what the proxy cannot tell yet: to it, a
wrong sum looks like a right one. So two copies of the base model are fine-tuned, each on the rows that the first
look ranks highest in one half of the pool, and each looks at the *other* half and at the anchors:

* ``late_loss``: the row's loss under the proxy that was not trained on it, in nats per token;
* ``corrupted_p``: (1 + the number of anchors whose loss there is at least as high) / (1 + anchors), a conformal
  p-value (Vovk et al. 2005; Bates et al. 2023) of "this row is as clean as an anchor". Neither an anchor nor the
  row was trained on, so for a clean row of the anchors' distribution it is close to uniform. Not exactly: the
  anchors had a say in what was trained on, which can lower their losses; the fewer anchors, the more.

Then a second round: two more copies learn from the rows of their half that the first round did not find corrupted.
They have seen more of what is clean and hard, and less of what is corrupted; their losses are the ones that count.
There a row has an indirect say in how it is judged: a proxy that learnt from it chose what its judge learns from. So
a corruption that is alike in both halves can confirm itself, which should cost power, not make false alarms.

Tables: ``first_look/`` holds the one-step scores, ``second_look/round-N/`` the losses, the score table both.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ost_hf.data.batching import cut_batches
from ost_hf.data.encoding import Encoded, EncodedDataset
from ost_hf.errors import DataError, ModelError
from ost_hf.files import write_whole
from ost_hf.parallel import barrier, free_memory, is_main
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scorers.base import Scorer
from ost_hf.scorers.perplexity import LossScorer
from ost_hf.scoring.anchor_scores import write_anchor_scores
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.loop import run_scorer, score_within_memory
from ost_hf.scoring.score_table import ScoreTable
from ost_hf.scoring.second_look_proxy import LOWER, mature_proxy

logger = logging.getLogger(__name__)

Record = dict[str, Any]

FOLDS = (0, 1)
# After a round its p-values say what the next learns from. Chosen on development seeds: with 0.2 the proxies lose
# many hard clean rows, and then take such rows for corrupted ones.
FOUND_CORRUPTED = 0.05
# Where next to nothing looks clean (anchors that are not like the pool), this share of a half is learnt from.
_LEAST_SHARE = 0.1


@dataclass(frozen=True)
class _Look:
    """One proxy of one round: it learns from rows of half ``k`` and is asked about the other half."""

    number: int
    k: int
    losses: ScoreTable

    @property
    def place(self) -> int:
        return len(FOLDS) * (self.number - 1) + self.k

    @property
    def proxy(self) -> Path:
        return self.losses.folder / f"proxy-{self.k}"

    @property
    def anchors(self) -> Path:
        return self.losses.folder / f"anchors-{self.k}.json"


def run_second_look(
    build: Callable[..., Scorer],
    pool: EncodedDataset,
    anchors: EncodedDataset,
    proxy: ProxyConfig,
    table: ScoreTable,
    exclude: Any,
    config: ScoringConfig,
) -> None:
    """Scores the whole pool twice into ``table``, and what leads there into tables beside its parts.

    Args:
        build: Makes the scorer of the first look from a configuration.
        pool: The candidates, encoded for the proxy.
        anchors: The anchors, encoded likewise: none of them is ever trained on.
        proxy: The model that is fine-tuned for the second look.
        table: The score table; its manifest is written already and gets the anchors' figures.
        exclude: Rows that are not scored.
        config: With ``second_look``.
    """
    first = _first_look(build, pool, anchors, table, exclude, config)
    usable = first.filter(pc.is_valid(first["utility"])).select(["row", "example_id", "utility"]).to_pylist()
    hashes = pool.rows.content_hashes
    fold_of = {record["row"]: fold(hashes[record["row"]], config.seed) for record in usable}
    halves = {k: [record for record in usable if fold_of[record["row"]] == k] for k in FOLDS}
    learnt_from = {k: best_rows(half, config.second_look_share) for k, half in halves.items()}
    if not all(learnt_from.values()):
        raise DataError(
            f"a half of the pool has no row that could be scored ({len(usable)} of {len(pool)} could): nothing can be "
            "learnt from it. Look at the statuses, or set scoring.second_look to false for so small a pool"
        )
    rounds: list[Record] = []
    second: dict[int, Record] = {}
    for number in range(1, config.second_look_rounds + 1):
        if second:
            learnt_from = {k: not_corrupted([second[record["row"]] for record in half]) for k, half in halves.items()}
        seen = ScoreTable(table.folder / "second_look" / f"round-{number}")
        anchor_losses = []
        for k in FOLDS:
            others = sorted(row for row, half in fold_of.items() if half != k)
            look = _Look(number, k, seen)
            anchor_losses.append(_look(look, learnt_from[k], others, pool, anchors, proxy, exclude, config))
        second = _with_p_values(seen, fold_of, anchor_losses)
        corrupted = sum(record.get("found_corrupted", False) for record in second.values()) / len(second)
        rounds.append({"rows_trained_on": [len(learnt_from[k]) for k in FOLDS], "found_corrupted": corrupted})
        logger.info("second look, round %d: %.0f%% of the rows look corrupted", number, 100 * corrupted)
    if is_main():
        manifest = table.manifest()
        report = {"anchor_losses": anchor_losses, "rounds": rounds}
        table.write_manifest(manifest.pop("identity"), **{**manifest, "second_look": report})
        _merge(first, second, table, config)
    barrier()


def _with_p_values(seen: ScoreTable, fold_of: dict[int, int], anchor_losses: list[list[float]]) -> dict[int, Record]:
    """What a round found of each row that it looked at."""
    columns = ["row", "example_id", "loss", "status", "detail"]
    found = {record["row"]: record for record in seen.read(complete=False).select(columns).to_pylist()}
    for k in FOLDS:
        rows = [row for row, record in found.items() if record["loss"] is not None and fold_of[row] != k]
        # No p-value is below 1 / (1 + anchors): with fewer than 19 of them, that is the level.
        level = max(FOUND_CORRUPTED, 1 / (1 + len(anchor_losses[k])))
        for row, p_value in zip(rows, conformal_p([found[row]["loss"] for row in rows], anchor_losses[k]), strict=True):
            found[row] |= {"p_value": p_value, "found_corrupted": p_value <= level}
    return found


def _merge(first: pa.Table, second: dict[int, Record], table: ScoreTable, config: ScoringConfig) -> None:
    """Writes what is missing in the score table; a part at a time is made Python objects."""
    done = table.rows_done()
    for start in range(0, len(first), config.part_size):
        records = first.slice(start, config.part_size).to_pylist()
        for record in records:
            found = second.get(record["row"], {})
            record |= {"late_loss": found.get("loss"), "corrupted_p": found.get("p_value")}
            if found and found["loss"] is None:
                record["detail"] = f"second look: {found['status']}, {found['detail']}"
        missing = [record for record in records if record["row"] not in done]
        if missing:
            table.write_part(missing)


def fold(content_hash: str, seed: int) -> int:
    """Which half of the pool a row is in: a function of the seed and its content, so that copies share a half."""
    return hashlib.blake2b(f"second look {seed}:{content_hash}".encode(), digest_size=1).digest()[0] % len(FOLDS)


def best_rows(records: Sequence[Record], share: float) -> list[int]:
    """The rows to learn from, best first: those of highest one-step utility.

    Low loss would choose what the proxy knows already, and teach it little.
    """
    ordered = sorted(records, key=lambda record: (-record["utility"], record["example_id"]))
    return [record["row"] for record in ordered[: max(1, round(share * len(ordered)))]]


def not_corrupted(records: Sequence[Record]) -> list[int]:
    """The rows that a round did not find corrupted; if that is less than a tenth, the tenth of lowest loss.

    Args:
        records: ``row``, ``example_id``, ``loss``; where there is a loss also ``found_corrupted``.

    Returns:
        Rows in the order of their ``example_id``: training does not depend on near ties of losses.
    """
    seen = [record for record in records if record["loss"] is not None]
    clean = [record for record in seen if not record["found_corrupted"]]
    least = math.ceil(_LEAST_SHARE * len(seen))
    if len(clean) < least:
        clean = sorted(seen, key=lambda record: (record["loss"], record["example_id"]))[:least]
    return [record["row"] for record in sorted(clean, key=lambda record: record["example_id"])]


def conformal_p(losses: Sequence[float], calibration: Sequence[float]) -> list[float]:
    """P-values of the hypothesis that a row is exchangeable with the calibration rows.

    Args:
        losses: N losses.
        calibration: Losses of M rows known to be clean.

    Returns:
        ``(1 + #{calibration >= loss}) / (M + 1)`` for each, between 1 / (M + 1) and 1.
    """
    ordered = np.sort(np.asarray(calibration, dtype=np.float64))
    below = np.searchsorted(ordered, np.asarray(losses, dtype=np.float64), side="left")
    return ((1 + len(ordered) - below) / (len(ordered) + 1)).tolist()


def _first_look(
    build: Callable[..., Scorer],
    pool: EncodedDataset,
    anchors: EncodedDataset,
    table: ScoreTable,
    exclude: Any,
    config: ScoringConfig,
) -> pa.Table:
    part = ScoreTable(table.folder / "first_look")
    missing = sorted(set(range(len(pool))) - part.rows_done())
    if is_main():
        part.write_manifest({"estimator": config.estimator}, rows=len(pool))
    barrier()
    if missing:
        scorer = build(config=config)
        # Before the rows: where they are complete, this is too.
        write_anchor_scores(scorer, anchors, table, config)
        run_scorer(scorer, pool, part, missing, exclude, config)
        del scorer
        free_memory()
    return part.read()


def _look(
    look: _Look,
    learnt_from: list[int],
    others: list[int],
    pool: EncodedDataset,
    anchors: EncodedDataset,
    proxy: ProxyConfig,
    exclude: Any,
    config: ScoringConfig,
) -> list[float]:
    """Trains one proxy and asks it about the rows ``others`` and the anchors, as far as that is missing.

    Returns:
        The anchors' losses.
    """
    missing = sorted(set(others) - look.losses.rows_done())
    has_anchors = look.anchors.exists()
    if is_main():
        look.losses.write_manifest({"look": "second", "round": look.number}, rows=0)
    barrier()
    if missing or not has_anchors:
        if not learnt_from:
            raise DataError(
                f"no row of a half of the pool had a loss in round {look.number - 1} of the second look: see the "
                f"statuses in {look.losses.folder.parent}"
            )
        model = mature_proxy(look.proxy, look.place, learnt_from, pool, proxy, config)
        scorer = LossScorer(model, pool.encoder.processing_class, config)
        run_scorer(scorer, pool, look.losses, missing, exclude, config)
        losses = _losses(scorer, [anchors.encode(row) for row in range(len(anchors))])
        if is_main():
            text = json.dumps(losses) + "\n"
            write_whole(look.anchors, lambda temporary: temporary.write_text(text))
        del scorer, model
        free_memory()
    barrier()
    if is_main():
        # Its answers are on disk, and copies of a large proxy would fill it.
        shutil.rmtree(look.proxy, ignore_errors=True)
    return json.loads(look.anchors.read_text())


def _losses(scorer: LossScorer, rows: list[Encoded]) -> list[float]:
    losses: dict[int, float] = {}
    for batch in cut_batches(rows, scorer.batch_tokens, scorer.batch_size):
        for row, score in zip(batch, score_within_memory(scorer, batch), strict=True):
            if score is None or score.loss is None:
                raise DataError(f"anchor {row.row} of {row.length} tokens does not fit into the device's memory")
            if not math.isfinite(score.loss):
                raise ModelError(f"the second look's loss of anchor {row.row} is {score.loss}: {LOWER}")
            losses[row.row] = score.loss
    return [losses[row] for row in sorted(losses)]
