"""How far a proxy's utilities can be trusted and what they cost, measured on a few rows before a pool is scored.

Each estimator scores the same rows twice with the same parameters: once as the score stage does, once in other
company (rows and anchors shuffled, other batch sizes, more padding). What differs is noise. This is done in the
configured precision and in float32 (or bfloat16), where the base model is loaded again under the same adapter.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import Encoded
from ost_hf.doctor.advice import Findings, recommend, warnings_of
from ost_hf.doctor.diagnosis import Diagnosis, Measurement, Sample, Setting, describe, figures_of
from ost_hf.doctor.plan import planned_cost
from ost_hf.doctor.readings import Adapter, Bench, Reading, Readings, read_all, read_in
from ost_hf.duplicates.policy import write_report
from ost_hf.errors import ConfigError, DataError
from ost_hf.evidence.rank_correlation import spearman
from ost_hf.files import write_json
from ost_hf.parallel import free_memory, state
from ost_hf.proxy.model import Proxy
from ost_hf.scorers.one_step.scorer import step_size
from ost_hf.scoring.config import DEFAULT_SCORER
from ost_hf.scoring.cost import StageCost
from ost_hf.scoring.job import ScoringJob, ScoringRequest
from ost_hf.scoring.prepared_proxy import prepare_proxy
from ost_hf.scoring.runner import check_request, encoded_job, exclude_copies
from ost_hf.scoring.second_stages import SECOND_STAGES
from ost_hf.tables.statuses import OK


def diagnose(request: ScoringRequest, rows: int = 32) -> Diagnosis:
    """Examines a run's proxy; writes ``doctor.json``, ``duplicates.json`` and, if it is not there yet, ``proxy``.

    Args:
        request: As for ``score_pool``; the proxy is warmed up on the rows that it would be warmed up on there.
        rows: Candidates drawn from the pool.

    Raises:
        ConfigError: For a scorer that gives no one-step utilities, or more than one process.
        DataError: If anchors cannot be used, there are duplicates where none may be, or fewer than three of the drawn
            rows can be used.
        RunDirectoryError: If the folder holds a proxy of another run.
    """
    if request.scoring.scorer != DEFAULT_SCORER:
        raise ConfigError(
            f"the doctor examines the {DEFAULT_SCORER} scorer, got scoring.scorer {request.scoring.scorer!r}"
        )
    if state().num_processes > 1:
        raise ConfigError(
            f"the doctor measures one process, got {state().num_processes}: start it without accelerate launch"
        )
    check_request(request.scoring, request.anchors)
    exclude, report = exclude_copies(request)
    write_report(report, request.run_dir / "duplicates.json")
    job = encoded_job(request, exclude)
    # Not kept here: its memory is needed for the same proxy in another precision.
    diagnosis = examine(prepare_proxy(job), job, rows)
    write_diagnosis(diagnosis, request.run_dir / "doctor.json")
    return diagnosis


def examine(proxy: Proxy, job: ScoringJob, rows: int = 32) -> Diagnosis:
    """Examines a proxy in memory; it is left as it was.

    Args:
        proxy: The proxy in its own precision.
        job: The pool and the anchors, encoded for it, and the settings to look at: utility, update rule, learning rate,
            batch sizes. Standard errors, groups and sketches are left out.
        rows: Candidates drawn.
    """
    assert job.anchors is not None
    scoring = job.config
    structure = describe(proxy)
    drawn = draw(job.pool, job.exclude, rows, scoring.seed)
    usable = [row for row in drawn if row.features is not None]
    statuses = dict(Counter(row.status for row in drawn if row.status != OK))
    if len(usable) < 3:
        raise DataError(
            f"{len(usable)} of {len(drawn)} rows drawn from the pool can be scored, at least 3 are needed; the others "
            f"are: {statuses}. Mend the rows, or the pool and encoding sections"
        )
    bench = Bench(usable, len(job.pool), job.anchors, scoring)
    readings = read_all(structure.precision, bench, proxy)
    # With the proxy still in memory, as it will be.
    second_stage = _second_stage(job, usable)
    if structure.quantisation is None:
        adapter = Adapter.of(proxy)
        # One base model at a time, where the caller keeps none.
        del proxy
        free_memory()
        readings |= read_in("bfloat16" if structure.precision == "float32" else "float32", bench, adapter)
    measurements = _measurements(readings)
    sample = Sample(len(job.pool), len(drawn), len(usable), statuses, len(job.anchors))
    options = scoring.options
    setting = Setting(options.estimator, options.utility, options.update_rule, step_size(options))
    found = Findings(structure, sample, setting, measurements, second_stage)
    stage = second_stage.parts if second_stage is not None else None
    cost = planned_cost(scoring, job.proxy, job.candidates, len(job.anchors), stage)
    advice = warnings_of(found), recommend(found)
    return Diagnosis(structure, sample, setting, measurements, *advice, second_stage, cost)


def _second_stage(job: ScoringJob, rows: list[Encoded]) -> StageCost | None:
    """What the second stage would take, where there is one that tells."""
    if job.config.second_stage is None:
        return None
    stage = SECOND_STAGES.find(job.config.second_stage).make()
    return stage.cost(job, rows) if hasattr(stage, "cost") else None


def draw(pool: EncodedDataset, exclude: Collection[int], count: int, seed: int) -> list[Encoded]:
    """A seeded random choice of rows in the pool's order, usable or not."""
    allowed = sorted(set(range(len(pool))) - set(exclude))
    chosen = random.Random(seed).sample(allowed, min(count, len(allowed)))
    return [pool.encode(row) for row in sorted(chosen)]


def write_diagnosis(diagnosis: Diagnosis, path: Path) -> None:
    """Writes strict JSON: a figure that is not finite becomes ``null``."""
    write_json(path, _finite(asdict(diagnosis)))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _measurements(readings: Readings) -> list[Measurement]:
    exact = _usable(readings.get(("float32", "exact", "raw")))
    measured = []
    for (precision, estimator, utility), reading in readings.items():
        names = precision, estimator, utility
        usable = _usable(reading)
        if usable is None:
            refused = reading if isinstance(reading, str) else "some of its utilities are not finite"
            measured.append(Measurement(*names, refused=refused))
            continue
        same = _usable(readings.get(("float32", estimator, utility))) if precision != "float32" else None
        rank = spearman(usable.once, exact.once) if exact else math.nan
        figures = figures_of(
            usable.once, usable.again, usable.cost, same.once if same else None, None if math.isnan(rank) else rank
        )
        measured.append(Measurement(*names, figures, note=usable.note))
    return measured


def _usable(reading: Reading | str | None) -> Reading | None:
    if not isinstance(reading, Reading):
        return None
    return reading if all(map(math.isfinite, (*reading.once, *reading.again))) else None
