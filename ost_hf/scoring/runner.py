"""Scores a pool: any number of processes, resumable, one table."""

from __future__ import annotations

import logging
import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.duplicates.policy import Excluded, exclude_rows, write_report
from ost_hf.errors import DataError
from ost_hf.models import load_processing_class
from ost_hf.parallel import barrier, free_memory, is_main
from ost_hf.proxy.model import Proxy
from ost_hf.scorers.inputs import check_group_by
from ost_hf.scorers.protocol import Scorer
from ost_hf.scorers.registry import ANCHORS, PROXY, SCORERS
from ost_hf.scoring.anchor_scores import score_rows_and_anchors
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.identity import check_weights, hold_weights, identity_of
from ost_hf.scoring.job import ScoringJob, ScoringRequest
from ost_hf.scoring.passes import cost_in_words
from ost_hf.scoring.prepared_proxy import check_stored, prepare_proxy
from ost_hf.scoring.reuse import accept_reuse, score_again
from ost_hf.scoring.second_stages import SECOND_STAGES
from ost_hf.scoring.side_tables import Build, scored_by, write_merged
from ost_hf.scoring.tally import apart, cost_so_far, count, counting
from ost_hf.settings import Section
from ost_hf.tables.anchor_table import anchor_file
from ost_hf.tables.content_table import write_contents
from ost_hf.tables.score_table import ScoreTable, statuses_of
from ost_hf.tables.statuses import OF_UNUSABLE

logger = logging.getLogger(__name__)

# Beside the parts: what a scorer wants to find again, and what was done so far.
_OF_THE_SCORER = "scorer"
_COST = "cost"


def score_pool(request: ScoringRequest) -> ScoreTable:
    """Scores every row of a pool and writes ``run_dir/scores`` (and ``run_dir/proxy``).

    Called on every process of the run; what was killed goes on from what is there, with any number of processes.

    Returns:
        The complete score table.

    Raises:
        DataError: If anchors are needed and missing, or cannot be used, or there are duplicates where none may be.
        RunDirectoryError: If the folder holds scores of another configuration or dataset, or by other weights.
    """
    return run_job(open_job(request))


def check_request(scoring: ScoringConfig, anchors: Rows | None) -> None:
    """Raises ``DataError`` where anchors are not what the scorer asks for; warns of settings that do nothing."""
    if ANCHORS in SCORERS.find(scoring.scorer).needs:
        if anchors is None:
            raise DataError(
                f"the {scoring.scorer} scorer needs anchors: a small clean set that stands for the target tasks"
            )
        check_group_by(anchors, scoring.group_by)
    if scoring.idle and is_main():
        logger.warning(
            "these settings do nothing with scorer %s and second_stage %s: %s",
            scoring.scorer, scoring.second_stage or "null", ", ".join(scoring.idle),
        )  # fmt: skip


def open_job(request: ScoringRequest) -> ScoringJob:
    """Accepts a request, or refuses it: finds what repeats, and compares with what the run directory holds.

    Nothing is scored. What comes after this is work.

    Raises:
        DataError: As :func:`score_pool` does.
        RunDirectoryError: The same.
    """
    pool = request.pool
    check_request(request.scoring, request.anchors)
    reused = accept_reuse(request) if request.reuse is not None else None
    for rows in (pool, *request.evaluation):
        rows.hash_together()
    exclude, report = exclude_copies(request)
    identity = identity_of(request)
    has_rows = ScoreTable(request.run_dir / "scores").check_manifest(identity)
    # Before anything is written: a proxy that is not there, or is another than the folder's, is refused here.
    job = replace(encoded_job(request, exclude), reuse=reused)
    if PROXY in SCORERS.find(request.scoring.scorer).needs and len(job.table.rows_done()) < len(job.pool):
        check_weights(job.table.manifest().get("weights") if has_rows else None, job.table, job.proxy)
        check_stored(job)
    barrier()
    if is_main():
        if not has_rows:
            _begin(job.table, request, identity)
        if request.scoring.store:
            logger.info("%s", _stored_size(request.scoring, len(pool)))
        write_report(report, request.run_dir / "duplicates.json")
    barrier()
    return job


def exclude_copies(request: ScoringRequest) -> tuple[Excluded, Section]:
    """The rows of a request that repeat something and are not scored, and a report.

    Raises:
        DataError: If there are duplicates where none may be.
    """

    @cache
    def pool() -> EncodedDataset:
        return EncodedDataset(request.pool, Encoder(load_processing_class(request.proxy), request.encoding))

    return exclude_rows(
        request.pool,
        request.anchors,
        request.overlap,
        request.duplicates,
        request.evaluation,
        # The processor is loaded only where near copies are found.
        encode=lambda row: pool().encode(row),
    )


def encoded_job(request: ScoringRequest, exclude: Excluded) -> ScoringJob:
    """A request with its rows encoded for the proxy; the run directory is not looked at.

    Args:
        request: What is asked for.
        exclude: Rows that are not scored: the status and the detail each gets.
    """
    encoder = Encoder(load_processing_class(request.proxy), request.encoding)
    needs_anchors = ANCHORS in SCORERS.find(request.scoring.scorer).needs
    anchors = EncodedDataset(request.anchors, encoder) if needs_anchors and request.anchors is not None else None
    pool, table = EncodedDataset(request.pool, encoder), ScoreTable(request.run_dir / "scores")
    return ScoringJob(pool, anchors, request.proxy, table, exclude, request.scoring, request.run_dir)


def run_job(job: ScoringJob) -> ScoreTable:
    """Writes the rows that are missing in a job's table.

    Raises:
        RunDirectoryError: If rows were scored by other weights.
    """
    remaining = sorted(set(range(len(job.pool))) - job.table.rows_done())
    if not remaining:
        logger.info("all %d rows are scored already", len(job.pool))
        # A run may be killed at its very end, before it told.
        if is_main() and (job.table.folder / _COST).exists() and "cost" not in job.table.manifest():
            _tell_cost(job)
        return job.table
    with counting(job.table.folder / _COST):
        build, proxy = _scorer_of(job)
        if job.config.second_stage is not None:
            _run_stage(job, build, proxy)
        elif job.reuse is not None:
            score_again(job, build)
        else:
            with apart("scoring"):
                score_rows_and_anchors(build(job.config), job, remaining)
    free_memory()
    barrier()
    if is_main():
        _tell_statuses(job)
        _tell_cost(job)
    return job.table


def _tell_statuses(job: ScoringJob) -> None:
    """Says how many rows have each status, and of what is wrong with rows one example each."""
    table = job.table.read(columns=["row", "status", "detail"])
    counts = statuses_of(table)
    told = ", ".join(f"{number} {status}" for status, number in counts.most_common())
    logger.info("scored %d rows: %s", len(job.pool), told)
    firsts: dict[str, str] = {}
    for row, status, detail in zip(*(table[name].to_pylist() for name in ("row", "status", "detail")), strict=True):
        if status in OF_UNUSABLE:
            firsts.setdefault(status, f"{counts[status]} {status}, such as row {row} ({detail[:100]})")
    if firsts:
        logger.warning("%d rows have no score: %s", sum(counts[name] for name in firsts), "; ".join(firsts.values()))


def _tell_cost(job: ScoringJob) -> None:
    """Says what the scores cost, here and in the manifest."""
    utility = job.table.read(columns=["row", "utility"])["utility"]
    cost = cost_so_far(job.table.folder / _COST, len(utility) - utility.null_count)
    job.table.add_to_manifest(cost=cost)
    logger.info("%s", cost_in_words(cost))


def _scorer_of(job: ScoringJob) -> tuple[Build, Proxy | None]:
    """What makes the job's scorer from a configuration, and its proxy if it has one."""
    registered = SCORERS.find(job.config.scorer)
    uses: dict[str, Any] = {"pool": job.pool, "exclude": job.exclude, "folder": job.table.folder / _OF_THE_SCORER}
    if ANCHORS in registered.needs:
        uses[ANCHORS] = job.anchors
    proxy = None
    if PROXY in registered.needs:
        hold_weights(job.table, job.proxy)
        proxy = uses[PROXY] = prepare_proxy(job)
    return partial(_build, registered.build, uses), proxy


def _build(build: Callable[..., Scorer], uses: dict[str, Any], config: ScoringConfig) -> Scorer:
    with apart("set_up"):
        scorer = build(config=config, options=config.options, **uses)
        count(getattr(scorer, "setup_passes", 0))
    return scorer


def _run_stage(job: ScoringJob, build: Build, proxy: Proxy | None) -> None:
    """The scorer's table of the whole pool, then what the second stage adds to it."""
    assert job.config.second_stage is not None
    stage: Any = SECOND_STAGES.find(job.config.second_stage).make()
    if hasattr(stage, "check"):
        stage.check(job, proxy)
    if job.reuse is not None:
        first = score_again(job, build)
        added = stage.again(job, first)
    else:
        first = scored_by(job, build, job.config, "first", range(len(job.pool)))
        added = stage.run(job, first, build)
    if is_main():
        write_merged(first.read(), added, job)
    barrier()


def _begin(table: ScoreTable, request: ScoringRequest, identity: Section) -> None:
    """Writes the manifest of a table without rows."""
    # Of a run that ended before its first row, and was perhaps another.
    anchor_file(table).unlink(missing_ok=True)
    for folder in (_OF_THE_SCORER, _COST):
        shutil.rmtree(table.folder / folder, ignore_errors=True)
    if request.scoring.store:
        write_contents(table, request.pool.content_hashes)
    names = ("ost-hf", "torch", "transformers", "accelerate", "peft", "datasets")
    facts: Section = {
        "rows": len(request.pool),
        "anchors": len(request.anchors) if request.anchors is not None else None,
        "strategy": request.strategy,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
    }
    table.write_manifest(identity, **facts)


def _stored_size(scoring: ScoringConfig, rows: int) -> str:
    """What will be stored of a pool, in words."""
    numbers = scoring.sketch_size + scoring.embedding_size
    twice = scoring.second_stage is not None
    return (
        f"stored for reuse: {rows:,} rows x {2 * numbers:,} bytes at most (a sketch of {scoring.sketch_size} and a "
        f"vector of {scoring.embedding_size} numbers, float16): {2 * numbers * rows / 2**20:,.1f} MiB"
        f"{', and as much in the first look; and the proxies of the second stage' if twice else ''}"
    )
