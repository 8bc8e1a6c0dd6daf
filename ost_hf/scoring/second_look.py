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

Tables: ``first_look/`` holds the one-step scores, ``second_look/round-N/`` the losses, the score table both.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ost_hf.data.batching import cut_batches
from ost_hf.data.encoding import Encoded, EncodedDataset
from ost_hf.errors import DataError, ModelError
from ost_hf.files import write_whole
from ost_hf.models import ModelConfig, load_model
from ost_hf.parallel import barrier, free_memory, is_main, outside_deepspeed, state
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import build_proxy
from ost_hf.proxy.training import linear_schedule, shuffled_batches, train
from ost_hf.scorers.base import Scorer
from ost_hf.scorers.perplexity import LossScorer
from ost_hf.scoring.anchor_scores import write_anchor_scores
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.loop import run_scorer, score_within_memory
from ost_hf.scoring.score_table import ScoreTable

logger = logging.getLogger(__name__)

Record = dict[str, Any]

FOLDS = (0, 1)
# After a round its p-values say what the next learns from. Chosen on development seeds: with 0.2 the proxies lose
# many hard clean rows, and then take such rows for corrupted ones.
FOUND_CORRUPTED = 0.05
# Where next to nothing looks clean (anchors that are not like the pool), this share of a half is learnt from.
_LEAST_SHARE = 0.1
_MAX_GRAD_NORM = 1.0
_LOWER = "lower scoring.second_look_learning_rate"


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
    for number in range(1, config.second_look_rounds + 1):
        seen = ScoreTable(table.folder / "second_look" / f"round-{number}")
        losses = {}
        for k in FOLDS:
            others = sorted(row for row, half in fold_of.items() if half != k)
            losses[k] = _look(number, k, learnt_from[k], others, pool, anchors, proxy, seen, exclude, config)
        rounds.append({"rows_trained_on": [len(learnt_from[k]) for k in FOLDS]})
        second = _with_p_values(seen, fold_of, losses)
        learnt_from = {k: not_corrupted([second[record["row"]] for record in half]) for k, half in halves.items()}
    if is_main():
        manifest = table.manifest()
        report = {"anchor_losses": [losses[k] for k in FOLDS], "rounds": rounds}
        table.write_manifest(manifest.pop("identity"), **{**manifest, "second_look": report})
        _merge(first, second, table, config)
        for path in (table.folder / "second_look").glob("round-*/proxy-*"):
            shutil.rmtree(path, ignore_errors=True)
    barrier()


def _with_p_values(seen: ScoreTable, fold_of: dict[int, int], losses: dict[int, list[float]]) -> dict[int, Record]:
    """What a round found of each row that it looked at."""
    columns = ["row", "example_id", "loss", "status", "detail"]
    found = {record["row"]: record for record in seen.read(complete=False).select(columns).to_pylist()}
    for k in FOLDS:
        rows = [row for row, record in found.items() if record["loss"] is not None and fold_of[row] != k]
        for row, p_value in zip(rows, conformal_p([found[row]["loss"] for row in rows], losses[k]), strict=True):
            # No p-value is below 1 / (1 + anchors): with few of them, the least there can be.
            found[row] |= {"p_value": p_value, "level": max(FOUND_CORRUPTED, 1 / (1 + len(losses[k])))}
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
    """The rows that a round did not find corrupted, lowest loss first, and at least a tenth of all.

    Args:
        records: ``row``, ``example_id``, ``loss``; where there is a loss also ``p_value`` and ``level``, the p-value
            up to which a row counts as corrupted.
    """
    seen = sorted((r for r in records if r["loss"] is not None), key=lambda r: (r["loss"], r["example_id"]))
    clean = [record["row"] for record in seen if record["p_value"] > record["level"]]
    least = math.ceil(_LEAST_SHARE * len(seen))
    return clean if len(clean) >= least else [record["row"] for record in seen[:least]]


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
    number: int,
    k: int,
    learnt_from: list[int],
    others: list[int],
    pool: EncodedDataset,
    anchors: EncodedDataset,
    proxy: ProxyConfig,
    seen: ScoreTable,
    exclude: Any,
    config: ScoringConfig,
) -> list[float]:
    """One proxy of a round: trained on rows of its half ``k``, asked about the other half and the anchors.

    Returns:
        The anchors' losses.
    """
    missing = sorted(set(others) - seen.rows_done())
    stored = seen.folder / f"anchors-{k}.json"
    has_anchors = stored.exists()
    if is_main():
        seen.write_manifest({"look": "second", "round": number}, rows=0)
    barrier()
    if missing or not has_anchors:
        if not learnt_from:
            raise DataError(
                "no row of a half of the pool had a loss in the round before: see the statuses in second_look"
            )
        model = _mature(number, k, learnt_from, pool, proxy, seen, config)
        scorer = LossScorer(model, pool.encoder.processing_class, config)
        run_scorer(scorer, pool, seen, missing, exclude, config)
        losses = _losses(scorer, [anchors.encode(row) for row in range(len(anchors))])
        if is_main():
            text = json.dumps(losses) + "\n"
            write_whole(stored, lambda temporary: temporary.write_text(text))
        del scorer, model
        free_memory()
    barrier()
    return json.loads(stored.read_text())


def _losses(scorer: LossScorer, rows: list[Encoded]) -> list[float]:
    losses: dict[int, float] = {}
    for batch in cut_batches(rows, scorer.batch_tokens, scorer.batch_size):
        for row, score in zip(batch, score_within_memory(scorer, batch), strict=True):
            if score is None or score.loss is None:
                raise DataError(f"anchor {row.row} of {row.length} tokens does not fit into the device's memory")
            if not math.isfinite(score.loss):
                raise ModelError(f"the second look's loss of anchor {row.row} is {score.loss}: {_LOWER}")
            losses[row.row] = score.loss
    return [losses[row] for row in sorted(losses)]


def _mature(
    number: int,
    k: int,
    learnt_from: list[int],
    pool: EncodedDataset,
    proxy: ProxyConfig,
    seen: ScoreTable,
    config: ScoringConfig,
) -> Any:
    """The base model fine-tuned on some rows; a finished one is kept until the second look is over."""
    folder = seen.folder / f"proxy-{k}"
    finished = (folder / "finished").exists()
    barrier()
    if finished:
        return _load_mature(replace(proxy, model=str(folder), revision=None), proxy, config)[0]
    model, parameters = _load_mature(proxy, proxy, config)
    size = config.second_look_batch_size
    steps = max(config.second_look_min_steps, round(config.second_look_epochs * len(learnt_from) / size))
    place = len(FOLDS) * (number - 1) + k
    batches = shuffled_batches(learnt_from, size, steps, proxy.seed + place)
    # Language models in this library run without dropout: training mode would only add its cost to some.
    _, losses = train(
        model,
        parameters,
        pool,
        batches,
        linear_schedule(steps, config.second_look_learning_rate, rise=steps // 10),
        max_grad_norm=_MAX_GRAD_NORM,
        name=f"second look {place + 1} of {len(FOLDS) * config.second_look_rounds}",
    )
    if not math.isfinite(losses[-1]):
        raise ModelError(f"the second look's training ended with a loss of {losses[-1]}: {_LOWER}")
    logger.info(
        "second look %d: %d steps on %d rows, loss %.3f -> %.3f",
        place + 1, steps, len(learnt_from), losses[0], losses[-1],
    )  # fmt: skip
    if is_main():
        # The embeddings of an adapted model are frozen; "auto" would ask the Hub whether they were resized.
        is_adapter = config.second_look_trainable == "adapter"
        model.save_pretrained(folder, **({"save_embedding_layers": False} if is_adapter else {}))
        (folder / "finished").touch()
    barrier()
    return model


def _load_mature(source: ModelConfig, proxy: ProxyConfig, config: ScoringConfig) -> tuple[Any, list[Any]]:
    """The model on this process's device, in evaluation mode, and what of it is trained."""
    if config.second_look_trainable == "adapter":
        built = build_proxy(proxy)
        if source.model != proxy.model:
            from safetensors.torch import load_file

            weights = load_file(Path(source.model) / "adapter_model.safetensors", device=str(state().device))
            for name, parameter in built.parameters.items():
                parameter.data.copy_(weights[name.replace(".default.", ".")])
        return built.model, list(built.parameters.values())
    with outside_deepspeed():
        model = load_model(replace(source, dtype="float32")).to(state().device).eval()
    for parameter in model.parameters():
        if not parameter.is_floating_point():
            raise ModelError(
                f"{proxy.model} has weights of type {parameter.dtype}, which cannot be trained; set "
                "scoring.second_look_trainable to adapter"
            )
        parameter.requires_grad_(False)
    return model, list(model.parameters())
