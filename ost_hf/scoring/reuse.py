"""A first look made of an earlier run's stored values; only rows that the earlier run did not see are scored.

With other anchors, stored utilities are turned by the rows' sketches (:mod:`ost_hf.evidence.new_anchors`). How far the
result agrees with a full scoring is measured on a random sample, which lies in ``scores/agreement``.
"""

from __future__ import annotations

import json
import logging
import math
import random
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ost_hf.errors import ConfigError, RunDirectoryError
from ost_hf.evidence.new_anchors import Turn, turn
from ost_hf.evidence.rank_correlation import spearman
from ost_hf.files import write_whole
from ost_hf.models import describe_weights
from ost_hf.parallel import barrier, free_memory, is_main
from ost_hf.scorers.protocol import Scorer
from ost_hf.scoring.anchor_scores import keep_anchor_scores, score_rows_and_anchors
from ost_hf.scoring.job import ScoringJob, ScoringRequest
from ost_hf.scoring.loop import run_scorer
from ost_hf.scoring.reused import Reused
from ost_hf.scoring.second_stages import SECOND_STAGES
from ost_hf.scoring.side_tables import Build
from ost_hf.scoring.tally import apart
from ost_hf.settings import Section, as_mapping, name_differences
from ost_hf.tables.anchor_table import anchor_file, read_anchor_scores
from ost_hf.tables.columns import TableRows
from ost_hf.tables.score_table import ScoreTable

logger = logging.getLogger(__name__)

# Rows that are scored in full against new anchors, to say how far sketches can be trusted.
_SAMPLE = 128
# Below this Spearman correlation of sketches with full scores a warning is given.
_TRUSTED = 0.95
# The utility that sketches of gradients of length one give.
_TURNS = "mean_cosine"


def accept_reuse(request: ScoringRequest) -> Reused:
    """Whether an earlier run may be asked in place of the pool. No row is read for that, but the anchors.

    Raises:
        ConfigError: If what is asked for cannot be had from stored values.
        RunDirectoryError: If the earlier run did not store them, is not finished, or was made with other settings.
    """
    assert request.reuse is not None
    folder, table = request.reuse, ScoreTable(request.reuse / "scores")
    if folder.resolve() == request.run_dir.resolve():
        raise ConfigError(f"reuse names the run directory itself, {folder}: name another run_dir for the new scores")
    if not (table.folder / "manifest.json").exists():
        raise RunDirectoryError(f"reuse: there are no scores in {folder}; name the run directory of a scored pool")
    manifest = table.manifest()
    if not manifest["identity"]["scoring"].get("store"):
        raise RunDirectoryError(
            f"reuse: {folder} was scored without scoring.store, so nothing is there to be asked again; score it with "
            "scoring.store true first"
        )
    if len(table.rows_done()) < len(table) or not (folder / "proxy" / "proxy.json").exists():
        raise RunDirectoryError(f"reuse: the scores in {folder} are not finished, or its proxy is gone")
    _require_same_settings(request, manifest)
    same = _has_same_anchors(request, manifest["identity"])
    if not same:
        _require_turnable(request)
    stage = request.scoring.second_stage
    if stage is not None and not hasattr(SECOND_STAGES.find(stage).make(), "again"):
        raise ConfigError(f"reuse: second stage {stage!r} cannot be asked again; set scoring.second_stage to null")
    return Reused(folder, same)


def _require_same_settings(request: ScoringRequest, manifest: Section) -> None:
    """What a number depends on beside rows and anchors is the same, or is named."""
    identity = manifest["identity"]
    noted = {name: identity[name] for name in ("encoding", "proxy", "scoring")}
    prompt_then = (identity.get("system_prompts") or {}).get("pool")
    noted |= {"weights": manifest.get("weights"), "pool": {"system_prompt": prompt_then}}
    asked = {
        "encoding": request.encoding.identity(),
        "proxy": as_mapping(request.proxy),
        "scoring": request.scoring.identity(),
        "weights": describe_weights(request.proxy),
        "pool": {"system_prompt": _prompt_of(request.pool)},
    }
    differences = name_differences(noted, json.loads(json.dumps(asked)))
    if differences:
        raise RunDirectoryError(
            f"reuse: {request.reuse} was scored with other settings: {'; '.join(differences)}. Take those of that run, "
            "or score without reuse"
        )


def _has_same_anchors(request: ScoringRequest, identity: Section) -> bool:
    anchors, column = request.anchors, request.scoring.group_by
    assert anchors is not None, "one-step utilities ask anchors"
    found = (
        anchors.fingerprint,
        _prompt_of(anchors),
        anchors.column_digest(column) if column is not None else None,
    )
    prompts = identity.get("system_prompts") or {}
    return found == (identity["anchors"], prompts.get("anchors"), identity.get("group_by_digest"))


def _prompt_of(rows: Any) -> str | None:
    return rows.config.system_prompt if rows is not None else None


def _require_turnable(request: ScoringRequest) -> None:
    """Raises ``ConfigError`` where sketches do not give what other anchors would."""
    scoring = request.scoring
    if scoring.options.utility != _TURNS:
        raise ConfigError(
            f"reuse: sketches give the utility {_TURNS} against new anchors, not {scoring.options.utility!r}; keep the "
            "anchors of that run, or score without reuse"
        )
    if scoring.per_turn:
        raise ConfigError(
            "reuse: scoring.per_turn cannot be had against new anchors: no sketch is stored of a single turn, so "
            "turn_utilities stay those of the old anchors; keep the anchors of that run, or score without reuse"
        )
    asked = [f"scoring.{name}" for name in ("per_anchor", "group_by") if getattr(scoring, name)]
    if asked:
        raise ConfigError(
            f"reuse: {' and '.join(asked)} cannot be had against new anchors: a sketch is too coarse for few anchors; "
            "keep the anchors of that run, or score without reuse"
        )


def score_again(job: ScoringJob, build: Build) -> ScoreTable:
    """The first look: stored values where there are such, and scores of the other rows. Resumable; on every process.

    Args:
        job: What is scored, and what is reused for that.
        build: Makes the scorer of a configuration.

    Returns:
        The table of the whole pool: the job's own where no second stage follows.
    """
    assert job.reuse is not None
    table = job.table if job.config.second_stage is None else ScoreTable(job.table.folder / "first")
    scorer: Scorer | None = None
    if is_main() and table is not job.table:
        table.write_manifest({"part": "first"}, rows=len(job.pool))
    if job.reuse.same_anchors:
        if is_main():
            source = anchor_file(job.reuse.table)
            write_whole(anchor_file(job.table), lambda temporary: shutil.copyfile(source, temporary))
    else:
        scorer = build(job.config)
        keep_anchor_scores(scorer, job)
    how = None if job.reuse.same_anchors else _turn_of(job)
    if is_main():
        _fill(table, job, how)
    barrier()
    missing = sorted(set(range(len(job.pool))) - table.rows_done())
    stored = _stored_rows(job)
    if is_main():
        _say_what_is_scored(job, len(stored))
    if how is not None and scorer is not None:
        _measure_agreement(scorer, job, table, stored, how)
    if missing:
        with apart("scoring" if table is job.table else "first"):
            scorer = scorer or build(job.config)
            score_rows_and_anchors(scorer, job, missing, table)
    del scorer
    free_memory()
    return table


def _turn_of(job: ScoringJob) -> Turn:
    assert job.reuse is not None
    old, new = (read_anchor_scores(each) for each in (job.reuse.table, job.table))
    assert old is not None and new is not None, "runs that store have scores of anchors"
    return turn(*(np.array(each["sketch"].to_pylist(), dtype=np.float32) for each in (old, new)))


def _stored_rows(job: ScoringJob) -> set[int]:
    """The rows of the pool that have stored values: a resumed run finds the same."""
    assert job.reuse is not None
    asked = [row for row in range(len(job.pool)) if row not in job.exclude]
    return {row for part in job.reuse.values(job.pool.rows, asked, []) for row in part["row"].to_pylist()}


def _fill(table: ScoreTable, job: ScoringJob, how: Turn | None) -> None:
    """Writes what is stored of rows that are missing, and the rows that are not scored."""
    assert job.reuse is not None
    missing = sorted(set(range(len(job.pool))) - table.rows_done())
    for part in job.reuse.values(job.pool.rows, [row for row in missing if row not in job.exclude]):
        table.write_part(_first_look(part, how))
    left_out = TableRows()
    for row in missing:
        if row in job.exclude:
            left_out.begin(job.pool.rows.example_ids[row], row, 0, *job.exclude[row])
    if len(left_out):
        table.write_part(left_out.table())


def _first_look(stored: pa.Table, how: Turn | None) -> pa.Table:
    """Stored values without what a second stage has added; utilities against the new anchors, where there are such."""
    stages = [SECOND_STAGES.find(name) for name in SECOND_STAGES.names()]
    added = {name for stage in stages for name in stage.columns | stage.turn_columns}
    part = stored.drop_columns(sorted(added & set(stored.column_names)))
    utility = part["utility"].combine_chunks()
    # What a second stage has said of a row that has a utility.
    detail = pc.if_else(utility.is_valid(), pa.scalar("", pa.string()), part["detail"].combine_chunks())
    part = part.set_column(part.column_names.index("detail"), "detail", detail)
    if how is None or not pc.any(utility.is_valid()).as_py():
        return part
    scored = utility.is_valid().to_numpy(zero_copy_only=False)
    # Of valid rows alone: from the chunk's own memory, for a part of vectors is long as a list.
    sketch = part.filter(pa.array(scored))["sketch"].combine_chunks().flatten().to_numpy()
    turned = np.full(len(part), np.nan)
    turned[scored] = how.utilities(utility.filter(pa.array(scored)).to_numpy(), sketch.reshape(-1, len(how.rest)))
    return part.set_column(part.column_names.index("utility"), "utility", pa.array(turned, mask=~scored))


def _note(job: ScoringJob, facts: Section) -> None:
    """Puts facts into the manifest, beside from where the table was made."""
    assert job.reuse is not None
    noted = {"run_dir": str(job.reuse.folder), **job.table.manifest().get("reuse", {}), **facts}
    job.table.add_to_manifest(reuse=noted)


def _say_what_is_scored(job: ScoringJob, stored: int) -> None:
    assert job.reuse is not None
    scored = len(job.pool) - len(job.exclude) - stored
    _note(job, {"rows_stored": stored, "rows_scored": scored})
    logger.info(
        "reuse: %d of %d rows have stored values in %s, %d are scored",
        stored, len(job.pool), job.reuse.folder, scored,
    )  # fmt: skip


def _measure_agreement(scorer: Scorer, job: ScoringJob, table: ScoreTable, stored: set[int], how: Turn) -> None:
    """Scores a random sample of the stored rows in full, and says how far sketches agree."""
    if not stored:
        return
    full = ScoreTable(job.table.folder / "agreement")
    utility = {row: value for row, value in _utilities(table) if row in stored}
    sample = sorted(random.Random(job.config.seed).sample(sorted(utility), min(_SAMPLE, len(utility))))
    if is_main():
        full.write_manifest({"part": "agreement"}, rows=len(sample))
    barrier()
    if not sample:
        return
    asked = sorted(set(sample) - full.rows_done())
    if asked:
        with apart("agreement"):
            run_scorer(scorer, job, asked, full)
    if not is_main():
        return
    known = dict(_utilities(full))
    pairs = [(utility[row], known[row]) for row in sample if row in known]
    found = spearman([one for one, _ in pairs], [other for _, other in pairs])
    agreement = {
        "rows": len(pairs),
        "spearman": None if math.isnan(found) else found,
        "standard_error": how.standard_error,
        "spread": float(np.std([other for _, other in pairs])) if pairs else None,
    }
    _note(job, {"agreement": agreement})
    logger.info("reuse: Spearman %.4f of utilities by sketches with full ones, on %d random rows", found, len(pairs))
    if not found >= _TRUSTED:
        logger.warning(
            "reuse: utilities by sketches of %d numbers rank unlike full ones here: score in full, or store larger "
            "sketches (scoring.sketch_size) next time", len(how.rest),
        )  # fmt: skip


def _utilities(table: ScoreTable) -> Iterator[tuple[int, float]]:
    found = table.read(complete=False, columns=["row", "utility"])
    found = found.filter(pc.is_valid(found["utility"]))
    yield from zip(found["row"].to_pylist(), found["utility"].to_pylist(), strict=True)
