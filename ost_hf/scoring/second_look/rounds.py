"""A second look at every row, with a proxy that has learnt from what was found clean before.

The one-step utility of a young proxy finds much of the noise, but not what the proxy cannot tell yet: to it, a
wrong sum looks like a right one. So a copy of the base model is fine-tuned on the rows that the first look did not set
apart from the anchors (``learnt_from.py``), and looks at all rows and at the anchors:

* ``late_loss``: how surprising the row is to that proxy, in nats (``evidence/late_loss.py``);
* ``corrupted_p``: (1 + the number of anchors that are at least as unlike a clean row) / (1 + anchors), a conformal
  p-value (Vovk et al. 2005; Bates et al. 2023) of "this row is as clean as an anchor". How unlike a row is, its late
  loss and its one-step utility say together (``evidence/nonconformity.py``). Rows that the proxy has learnt from look a
  little cleaner than they are, so that their p-values are a little too large;
* ``held_out``: whether no proxy could learn from the row. A random part of the pool is held out, so that p-values of
  rows that are like all others are known which are not too large: by them it is judged whether the pool is corrupted.

With ``cross_fit`` there are two copies, each of which learns from one half of the pool and looks at the *other*. For a
clean row of the anchors' distribution the p-value is then close to uniform: neither it nor an anchor was trained on by
the proxy that judges it, and an anchor's utility is against the others. Not exactly: the anchors had a say in what was
trained on, which can lower their losses (the fewer anchors, the more), and the first look's proxy was warmed up on a
few of the rows.

Further rounds train further copies on the rows that the round before did not find corrupted. They have seen more of
what is clean and hard, and less of what is corrupted. Where steps are bounded, a round before the last asks about no
more rows than the next can use. Each round from the second on asks the mixture of its own proxy
and those of the rounds between; the last round's answers are the ones that count. There a row has an indirect say in
how it is judged: a proxy that learnt from it chose what its judge learns from. So a corruption that is alike in both
halves can confirm itself: such rows come to look clean. Utilities do not follow.

Tables: ``first/`` holds the one-step scores, ``second_look/round-N/`` the losses (there ``loss`` is the late loss), the
score table both.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.errors import DataError, ModelError
from ost_hf.evidence.conformal import conformal_p, small_up_to
from ost_hf.evidence.late_loss import late_loss
from ost_hf.evidence.nonconformity import nonconformity
from ost_hf.evidence.turn_late_loss import late_losses
from ost_hf.files import write_json
from ost_hf.parallel import barrier, free_memory, is_main
from ost_hf.scorers.losses import LossScorer
from ost_hf.scorers.protocol import Scorer
from ost_hf.scoring.anchor_scores import score_anchors
from ost_hf.scoring.job import ScoringJob
from ost_hf.scoring.loop import run_scorer
from ost_hf.scoring.second_look.learnt_from import (
    asked_in,
    count_held_out,
    held_out,
    held_out_digest,
    learnt_first,
    not_corrupted,
    utilities_and_weight,
)
from ost_hf.scoring.second_look.options import SecondLookOptions
from ost_hf.scoring.second_look.proxies import LOWER, load_mature_proxy, remove_mature_proxy, train_mature_proxy
from ost_hf.scoring.second_look.turns import TurnLossScorer, with_turns, write_turns
from ost_hf.scoring.tally import apart
from ost_hf.tables.anchor_table import read_anchor_scores
from ost_hf.tables.score_table import ScoreTable

logger = logging.getLogger(__name__)

_HALVES = 2


@dataclass(frozen=True)
class Look:
    """One proxy of one round: it learns from rows of half ``k`` and is asked about the other half, or all rows."""

    number: int
    k: int
    losses: ScoreTable
    learnt_from: list[int]

    @property
    def name(self) -> str:
        """What it is called in the log."""
        return f"second look, round {self.number}, proxy {self.k + 1}"

    @property
    def place(self) -> int:
        """Its number among all proxies."""
        return _HALVES * (self.number - 1) + self.k

    @property
    def proxy(self) -> Path:
        """Where it is kept."""
        return self.losses.folder / f"proxy-{self.k}"

    @property
    def anchors(self) -> Path:
        """Where its round keeps the losses of the anchors."""
        return self.losses.folder / f"anchors-{self.k}.json"


def run_second_look(job: ScoringJob, first: ScoreTable) -> pa.Table:
    """Looks at every row again, in rounds; what leads there is in tables beside the score table's parts.

    Args:
        job: With the options of this stage. None of its anchors is ever trained on.
        first: The one-step utilities.

    Returns:
        ``row``, ``late_loss``, ``corrupted_p``, ``p_value_anchors``, ``held_out`` and ``detail`` of each row that was
        looked at.

    Raises:
        DataError: Where a half of the pool has nothing that could be learnt from.
        ModelError: Where a training diverges, or an anchor's loss is not finite.
    """
    options: SecondLookOptions = job.config.stage_options.of_pool(job.candidates)
    job = settled(job, options)
    rows = halved(first, job)
    halves = [rows.filter(pc.equal(rows["half"], k)) for k in options.folds]
    anchor_scores = read_anchor_scores(job.table)
    learnt_from = [learnt_first(half.filter(half["learnable"]), anchor_scores, options) for half in halves]
    if not all(learnt_from):
        raise DataError(_nothing_to_learn(options, len(rows), len(job.pool)))
    anchor_utility, weight = utilities_and_weight(anchor_scores, options)
    rounds: list[dict[str, Any]] = []
    looks: dict[int, list[Look]] = {k: [] for k in options.folds}
    for number in range(1, options.rounds + 1):
        seen = ScoreTable(job.table.folder / "second_look" / f"round-{number}")
        asked, anchor_losses = asked_in(rows, number, options, job.config.seed), []
        for k in options.folds:
            others = rows_for(asked, k, options)
            look = Look(number, k, seen, learnt_from[k])
            looks[k] = [*looks[k], look][-proxies_asked(number) :]
            anchor_losses.append(_look(looks[k], others, job))
        found = with_p_values(seen, asked, anchor_losses, anchor_utility, weight)
        corrupted = pc.mean(found["found_corrupted"]).as_py()
        rounds.append({"rows_trained_on": [len(learnt) for learnt in learnt_from], "found_corrupted": corrupted})
        logger.info("second look, round %d: %.0f%% of the rows look corrupted", number, 100 * corrupted)
        usable = [pc.and_(asked["learnable"], pc.equal(asked["half"], k)) for k in options.folds]
        learnt_from = [not_corrupted(found.filter(each)) for each in usable]
    if is_main():
        facts = {"utility_weight": weight, "proxies": len(halves), "anchor_losses": anchor_losses, "rounds": rounds}
        kept_out = rows.filter(pc.invert(rows["learnable"]))["row"].to_pylist()
        limit = max(
            (held_out_digest(job.pool.rows.content_hashes[row], job.config.seed) for row in kept_out), default=None
        )
        job.table.add_to_manifest(second_look={**facts, "held_out_up_to": limit})
    unseen = pa.array([True] * len(rows)) if options.cross_fit else pc.invert(rows["learnable"])
    added = as_added(found, min(map(len, anchor_losses)), unseen)
    return added_of_turns(added, rows, looks, options) if job.config.per_turn else added


def settled(job: ScoringJob, options: SecondLookOptions) -> ScoringJob:
    """The same job with how many proxies share the pool settled."""
    return replace(job, config=job.config.with_stage_options(cross_fit=options.cross_fit))


def rows_for(rows: pa.Table, k: int, options: SecondLookOptions) -> list[int]:
    """Those of some rows that proxies are asked about which learn from half ``k``."""
    return rows.filter(pc.equal(rows["half"], 1 - k if options.cross_fit else k))["row"].to_pylist()


def proxies_asked(number: int) -> int:
    """How many proxies a round asks about each row: its own and those of the rounds before, without the first's.

    Those learnt from much that is corrupted, and added nothing on development seeds.
    """
    return max(1, number - 1)


def _nothing_to_learn(options: SecondLookOptions, scored: int, of: int) -> str:
    return (
        f"{_part(options)} has no row that could be scored ({scored} of {of} could): nothing can be learnt from it. "
        "Look at the statuses, or set scoring.second_stage to null for so small a pool"
    )


def _part(options: SecondLookOptions) -> str:
    return "a half of the pool" if options.cross_fit else "the pool"


def halved(first: ScoreTable, job: ScoringJob) -> pa.Table:
    """What the rounds go by, of the rows that the first look could score: its columns, ``half`` and ``learnable``.

    Every process holds this of the whole pool: its columns stay arrays, and sketches are not read.
    """
    rows = first.read(columns=["row", "example_id", "utility", "loss"])
    rows = rows.filter(pc.is_valid(rows["utility"]))
    hashes = job.pool.rows.content_hashes
    options: SecondLookOptions = job.config.stage_options
    numbers = rows["row"].to_pylist()
    halves = [fold(hashes[row], job.config.seed) if options.cross_fit else 0 for row in numbers]
    # A judge alone judges what it has learnt from, but for these: they say what p-values of rows like them are worth.
    kept_out = held_out([hashes[row] for row in numbers], job.config.seed, count_held_out(len(rows), options))
    rows = rows.append_column("half", pa.array(halves, pa.int8()))
    return rows.append_column("learnable", pa.array(~kept_out))


def with_p_values(
    seen: ScoreTable, rows: pa.Table, anchor_losses: list[list[float]], anchor_utility: np.ndarray | None, weight: float
) -> pa.Table:
    """What a round found of each row that it looked at, by row; a row without a loss has no p-value.

    Args:
        seen: The round's table.
        rows: ``utility`` and ``half`` of the same rows.
        anchor_losses: [2][V], those of the proxy that learnt from each half; [1][V] of one that is asked about all.
        anchor_utility: [V]; ``None`` if there is none, and then the weight is 0.
        weight: Of the utility.
    """
    found = seen.read(complete=False, columns=["row", "example_id", "loss", "status", "detail"])
    assert found["row"].equals(rows["row"])
    losses, utility, halves = (column.to_numpy() for column in (found["loss"], rows["utility"], rows["half"]))
    p_values = np.full(len(losses), np.nan)
    for k, of_anchor in enumerate(anchor_losses):
        asked = ~np.isnan(losses) & ((halves != k) | (len(anchor_losses) == 1))
        of_rows, of_anchors = nonconformity(losses[asked], utility[asked], of_anchor, anchor_utility, weight)
        p_values[asked] = conformal_p(of_rows, of_anchors)
    found = found.append_column("p_value", pa.array(p_values, mask=np.isnan(p_values)))
    return found.append_column("found_corrupted", pa.array(p_values <= small_up_to(len(anchor_losses[0]))))


def as_added(found: pa.Table, anchors: int, unseen: pa.Array) -> pa.Table:
    """The last round's answers as the columns of a stage.

    Args:
        found: From :func:`with_p_values`.
        anchors: How many stand behind a p-value.
        unseen: Which rows are ``held_out``.
    """
    why = [
        f"second look: {status}, {detail}" if loss is None else None
        for loss, status, detail in zip(
            *(found[name].to_pylist() for name in ("loss", "status", "detail")), strict=True
        )
    ]
    return pa.table(
        {
            "row": found["row"],
            "detail": pa.array(why, pa.string()),
            "late_loss": found["loss"],
            "corrupted_p": found["p_value"],
            "p_value_anchors": pa.array([anchors] * len(found), pa.int32()),
            "held_out": unseen,
        }
    )


def added_of_turns(
    added: pa.Table, rows: pa.Table, looks: Mapping[int, list[Look]], options: SecondLookOptions
) -> pa.Table:
    """The stage's columns with those of turns.

    Args:
        added: From :func:`as_added`.
        rows: ``half`` of the same rows.
        looks: The proxies of each half that the last round has asked.
        options: Settled for a pool.
    """
    judge_of = 1 - rows["half"].to_numpy() if options.cross_fit else np.zeros(len(rows), dtype=int)
    return with_turns(added, looks[0][-1].losses, judge_of, [looks[k][-1].anchors for k in options.folds])


def fold(content_hash: str, seed: int) -> int:
    """Which half of the pool a row is in: a function of the seed and its content, so that copies share a half."""
    return hashlib.blake2b(f"second look {seed}:{content_hash}".encode(), digest_size=1).digest()[0] % _HALVES


def _look(looks: list[Look], others: list[int], job: ScoringJob) -> list[float]:
    """Trains the last of some proxies and asks them all about the rows ``others`` and the anchors, where missing.

    Returns:
        The anchors' losses.
    """
    look = looks[-1]
    missing = sorted(set(others) - look.losses.rows_done())
    has_anchors = look.anchors.exists()
    if is_main():
        look.losses.write_manifest({"look": "second", "round": look.number}, rows=0)
    barrier()
    if missing or not has_anchors:
        if not look.learnt_from:
            raise DataError(
                f"no row of {_part(job.config.stage_options)} had a loss in round {look.number - 1} of the second "
                f"look: see the statuses in {look.losses.folder.parent}"
            )
        with apart("second_look_training"):
            for each in looks:
                train_mature_proxy(each.proxy, each.name, job.proxy.seed + each.place, each.learnt_from, job)
        ask(looks, missing, job)
    barrier()
    is_last = look.number == job.config.stage_options.rounds
    is_done_with = not job.config.store if is_last else look.number == 1
    if is_main() and is_done_with:
        # Nobody asks them again, and copies of a large proxy would fill the disk.
        for each in looks:
            remove_mature_proxy(each.proxy)
    return json.loads(look.anchors.read_text())


def ask(looks: list[Look], missing: list[int], job: ScoringJob) -> None:
    """Asks trained proxies together about rows, and about the anchors where their losses are not there."""
    look = looks[-1]
    with apart("second_look_asking"):
        models = [load_mature_proxy(each.proxy, job) for each in looks]
        scorer = _scorer(models, job, look.number)
        run_scorer(scorer, job, missing, look.losses)
        if is_main() and not look.anchors.exists():
            _write_anchor_losses(scorer, job.anchors, look.anchors)
    del scorer, models
    free_memory()


def _scorer(models: list[Any], job: ScoringJob, number: int) -> Scorer:
    processing_class = job.pool.encoder.processing_class
    if job.config.per_turn and number == job.config.stage_options.rounds:
        return TurnLossScorer(partial(late_losses, models), processing_class, job.config, passes=len(models))
    return LossScorer(partial(late_loss, models), processing_class, job.config, passes=len(models))


def _write_anchor_losses(scorer: Scorer, anchors: EncodedDataset | None, path: Path) -> None:
    assert anchors is not None, "the stage follows a scorer that asks anchors"
    columns = score_anchors(scorer, anchors)
    losses = columns["loss"].tolist()
    wrong = next((row for row, loss in enumerate(losses) if not math.isfinite(loss)), None)
    if wrong is not None:
        raise ModelError(f"the second look's loss of anchor {wrong} is {losses[wrong]}: {LOWER}")
    write_turns(columns, path)
    write_json(path, losses)
