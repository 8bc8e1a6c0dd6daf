"""How far a proxy's utilities can be trusted and what they cost, measured on a few rows before a pool is scored.

Each estimator scores the same rows twice with the same parameters: once as the score stage does, once in other
company (rows and anchors shuffled, other batch sizes, more padding). What differs is noise. This is done in the
configured precision and in float32 (or bfloat16), where the base model is loaded again under the same adapter.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ost_hf.data.config import EncodingConfig
from ost_hf.data.encoding import Encoded, EncodedDataset, Encoder
from ost_hf.data.rows import Rows
from ost_hf.doctor.advice import Findings, recommend, warnings_of
from ost_hf.doctor.diagnosis import Diagnosis, Measurement, Sample, Setting, describe, figures_of
from ost_hf.doctor.readings import Adapter, Bench, Reading, Readings, read_all, read_in
from ost_hf.doctor.second_look_cost import measure_second_look
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.duplicates.policy import exclude_rows, write_report
from ost_hf.errors import ConfigError, DataError
from ost_hf.evidence.rank_correlation import spearman
from ost_hf.files import write_whole
from ost_hf.models import load_processing_class
from ost_hf.parallel import free_memory, state
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import Proxy
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.runner import prepare_proxy


def diagnose(
    run_dir: str | Path,
    pool: Rows,
    anchors: Rows,
    proxy: ProxyConfig,
    scoring: ScoringConfig | None = None,
    encoding: EncodingConfig | None = None,
    overlap: str = "error",
    rows: int = 32,
    duplicates: DuplicatesConfig | None = None,
    evaluation: Rows | None = None,
) -> Diagnosis:
    """Examines a run's proxy; writes ``doctor.json``, ``duplicates.json`` and, if it is not there yet, ``proxy``.

    Args:
        run_dir: The run directory.
        pool: The candidates.
        anchors: The anchor set.
        proxy: The proxy and its warm-up.
        scoring: Utility, update rule and learning rate to look at, and batch sizes.
        encoding: How rows become tokens.
        overlap: Anchors found in the pool: ``error``, or ``drop`` to leave those rows out.
        rows: Candidates drawn from the pool.
        duplicates: As for ``score_pool``: the proxy is warmed up on the rows that it would be warmed up on there.
        evaluation: The same.

    Raises:
        ConfigError: For another scorer than ``one_step``, or more than one process.
        DataError: If anchors cannot be used, there are duplicates where none may be, or fewer than three of the drawn
            rows can be used.
        RunDirectoryError: If the folder holds a proxy of another run.
    """
    scoring = scoring or ScoringConfig()
    if scoring.scorer != "one_step":
        raise ConfigError(f"the doctor examines the one_step scorer, got scoring.scorer {scoring.scorer!r}")
    if state().num_processes > 1:
        raise ConfigError(
            f"the doctor measures one process, got {state().num_processes}: start it without accelerate launch"
        )
    exclude, report = exclude_rows(pool, anchors, overlap, duplicates or DuplicatesConfig(), evaluation)
    write_report(report, Path(run_dir) / "duplicates.json")
    encoder = Encoder(load_processing_class(proxy), encoding or EncodingConfig())
    candidates, anchor_set = EncodedDataset(pool, encoder), EncodedDataset(anchors, encoder)
    # Not kept here: its memory is needed for the same proxy in another precision.
    diagnosis = examine(
        prepare_proxy(Path(run_dir) / "proxy", proxy, candidates, exclude),
        candidates,
        anchor_set,
        scoring,
        exclude,
        rows,
    )
    write_diagnosis(diagnosis, Path(run_dir) / "doctor.json")
    return diagnosis


def examine(
    proxy: Proxy,
    pool: EncodedDataset,
    anchors: EncodedDataset,
    scoring: ScoringConfig,
    exclude: Collection[int] = (),
    rows: int = 32,
) -> Diagnosis:
    """Examines a proxy in memory; it is left as it was.

    Args:
        proxy: The proxy in its own precision.
        pool: The candidates, encoded for it.
        anchors: The anchors, encoded for it.
        scoring: As in :func:`diagnose`. Standard errors, groups and sketches are left out.
        exclude: Rows of the pool not to draw.
        rows: Candidates drawn.
    """
    structure = describe(proxy)
    drawn = draw(pool, exclude, rows, scoring.seed)
    usable = [row for row in drawn if row.features is not None]
    statuses = dict(Counter(row.status for row in drawn if row.status != "ok"))
    if len(usable) < 3:
        raise DataError(
            f"{len(usable)} of {len(drawn)} rows drawn from the pool can be scored, at least 3 are needed; the others "
            f"are: {statuses}. Mend the rows, or the pool and encoding sections"
        )
    bench = Bench(usable, len(pool), anchors, scoring)
    readings = read_all(structure.precision, bench, proxy)
    # With the proxy still in memory, as it will be.
    second_look = measure_second_look(bench, pool, proxy.config) if scoring.second_look else None
    if structure.quantisation is None:
        adapter = Adapter.of(proxy)
        # One base model at a time, where the caller keeps none.
        del proxy
        free_memory()
        readings |= read_in("bfloat16" if structure.precision == "float32" else "float32", bench, adapter)
    measurements = _measurements(readings)
    sample = Sample(len(pool), len(drawn), len(usable), statuses, len(anchors))
    setting = Setting(scoring.estimator, scoring.utility, scoring.update_rule, scoring.step_size)
    found = Findings(structure, sample, setting, measurements, second_look)
    return Diagnosis(structure, sample, setting, measurements, warnings_of(found), recommend(found), second_look)


def draw(pool: EncodedDataset, exclude: Collection[int], count: int, seed: int) -> list[Encoded]:
    """A seeded random choice of rows in the pool's order, usable or not."""
    allowed = sorted(set(range(len(pool))) - set(exclude))
    chosen = random.Random(seed).sample(allowed, min(count, len(allowed)))
    return [pool.encode(row) for row in sorted(chosen)]


def write_diagnosis(diagnosis: Diagnosis, path: Path) -> None:
    """Writes strict JSON: a figure that is not finite becomes ``null``."""
    text = json.dumps(_finite(asdict(diagnosis)), indent=2, allow_nan=False) + "\n"
    write_whole(path, lambda temporary: temporary.write_text(text))


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
