"""A second look by the proxies of an earlier run: at rows that it did not see, and at other anchors.

What is stored of the other rows is their late loss, and it is against the anchors' late losses that it becomes a
p-value. The proxies learnt from rows of the earlier pool, which the earlier anchors had a say in: with other rows, or
with anchors of another kind, a run of its own would have trained others. There are as many of them as the earlier run
had, whatever the new pool's size; only those are asked that its last round asked.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from ost_hf.errors import RunDirectoryError
from ost_hf.files import copy_whole, write_json
from ost_hf.parallel import barrier, is_main
from ost_hf.scoring.job import ScoringJob
from ost_hf.scoring.second_look.learnt_from import held_out_digest, utilities_and_weight
from ost_hf.scoring.second_look.options import SecondLookOptions
from ost_hf.scoring.second_look.proxies import is_kept
from ost_hf.scoring.second_look.rounds import (
    Look,
    added_of_turns,
    as_added,
    ask,
    halved,
    proxies_asked,
    rows_for,
    settled,
    with_p_values,
)
from ost_hf.scoring.second_look.turns import LATE_LOSSES, copy_turns
from ost_hf.tables.anchor_table import read_anchor_scores
from ost_hf.tables.score_table import ScoreTable


def look_again(job: ScoringJob, first: ScoreTable) -> pa.Table:
    """Asks the proxies that an earlier run has kept about rows and anchors that it did not know.

    Args:
        job: With the earlier run.
        first: The one-step utilities.

    Returns:
        As :func:`run_second_look`; late losses of the other rows are the stored ones.
    """
    options = _options_of_earlier(job)
    job = settled(job, options)
    assert job.reuse is not None
    rows = halved(first, job)
    anchor_utility, weight = utilities_and_weight(read_anchor_scores(job.table), options)
    looks = _asked_together(job.table, options)
    seen = looks[0][-1].losses
    if is_main():
        seen.write_manifest({"look": "second", "round": options.rounds}, rows=0)
        _take_over(looks, job)
        _fill(seen, rows["row"].to_pylist(), job)
    barrier()
    anchor_losses = []
    for k in options.folds:
        missing = sorted(set(rows_for(rows, k, options)) - seen.rows_done())
        has_anchors = looks[k][-1].anchors.exists()
        barrier()
        if missing or not has_anchors:
            ask(looks[k], missing, job)
        barrier()
        anchor_losses.append(json.loads(looks[k][-1].anchors.read_text()))
    found = with_p_values(seen, rows, anchor_losses, anchor_utility, weight)
    if is_main():
        rounds = job.reuse.table.manifest()["second_look"]["rounds"]
        facts = {"utility_weight": weight, "proxies": len(looks), "anchor_losses": anchor_losses, "rounds": rounds}
        job.table.add_to_manifest(second_look={**facts, "held_out_up_to": _held_out_up_to(job)})
    added = as_added(found, min(map(len, anchor_losses)), _held_out(rows["row"].to_pylist(), job))
    return added_of_turns(added, rows, looks, options) if job.config.per_turn else added


def check_kept(job: ScoringJob) -> None:
    """Raises ``RunDirectoryError`` if a proxy that will be asked is gone from the run that is reused."""
    assert job.reuse is not None
    options = _options_of_earlier(job)
    for look in (each for some in _asked_together(job.reuse.table, options).values() for each in some):
        if not is_kept(look.proxy):
            raise RunDirectoryError(f"reuse: {look.proxy} is gone, which the second look asks about what is new")


def _options_of_earlier(job: ScoringJob) -> SecondLookOptions:
    """The options, settled as for the earlier pool: another size of pool would not bring other proxies."""
    assert job.reuse is not None
    options: SecondLookOptions = job.config.stage_options
    return replace(options, cross_fit=job.reuse.table.manifest()["second_look"]["proxies"] > 1)


def _held_out_up_to(job: ScoringJob) -> str | None:
    assert job.reuse is not None
    limit: str | None = job.reuse.table.manifest()["second_look"]["held_out_up_to"]
    return limit


def _held_out(numbers: list[int], job: ScoringJob) -> pa.Array:
    """Which of some rows are held out: stored values, and as many of the other rows as there were of the earlier pool.

    No judge has learnt from any row that is new. But the rows that are held out speak for the pool: all the new rows
    among them would speak too loud.
    """
    assert job.reuse is not None
    if job.config.stage_options.cross_fit:
        return pa.array([True] * len(numbers))
    known: dict[int, bool | None] = {}
    for part in job.reuse.values(job.pool.rows, numbers, ["held_out"]):
        known |= dict(zip(part["row"].to_pylist(), part["held_out"].to_pylist(), strict=True))
    limit, hashes = _held_out_up_to(job) or "", job.pool.rows.content_hashes
    found = [known.get(row) for row in numbers]
    return pa.array(
        [
            held_out_digest(hashes[row], job.config.seed) <= limit if value is None else value
            for row, value in zip(numbers, found, strict=True)
        ],
        pa.bool_(),
    )


def _asked_together(table: ScoreTable, options: SecondLookOptions) -> dict[int, list[Look]]:
    """The proxies of each half that the last round asks, beside a score table."""
    last = options.rounds
    rounds = {n: table.folder / "second_look" / f"round-{n}" for n in range(last - proxies_asked(last) + 1, last + 1)}
    return {k: [Look(n, k, ScoreTable(folder), []) for n, folder in rounds.items()] for k in options.folds}


def _take_over(looks: dict[int, list[Look]], job: ScoringJob) -> None:
    """The earlier run's proxies, and the losses of the anchors where these are the same."""
    assert job.reuse is not None
    for k, earlier in _asked_together(job.reuse.table, job.config.stage_options).items():
        for look, source in zip(looks[k], earlier, strict=True):
            if not is_kept(look.proxy):
                copy_whole(source.proxy, look.proxy, linked=True)
        anchors = looks[k][-1].anchors
        if job.reuse.same_anchors and not anchors.exists():
            if job.config.per_turn:
                copy_turns(earlier[-1].anchors, anchors)
            write_json(anchors, json.loads(earlier[-1].anchors.read_text()))


def _fill(seen: ScoreTable, asked: list[int], job: ScoringJob) -> None:
    """Writes the stored late losses of rows that are asked about."""
    assert job.reuse is not None
    missing = sorted(set(asked) - seen.rows_done())
    of_turns = [LATE_LOSSES] if job.config.per_turn else []
    for part in job.reuse.values(job.pool.rows, missing, ["late_loss", "tokens", *of_turns]):
        part = part.filter(pc.is_valid(part["late_loss"]))
        if len(part):
            names = {"loss": part["late_loss"], "utility": pc.negate(part["late_loss"]), "detail": [""] * len(part)}
            kept = {name: part[name] for name in ("example_id", "row", "tokens", "status", *of_turns)}
            seen.write_part(pa.table({**kept, **names}))
