"""Cheap on all, exact where it matters: first order ranks the pool, exact steps settle the cut-off.

Three tables: ``first/`` has every row, ``exact/`` a random calibration sample and the band of rows around
the cut-off, and the score table itself both: a row's exact utility where there is one, else its first-order
utility times the slope that the calibration sample shows. How far the two agree goes into the manifest.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import pyarrow as pa

from ost_hf.evidence.rank_correlation import spearman
from ost_hf.parallel import is_main
from ost_hf.scoring.cascade.options import CascadeOptions
from ost_hf.scoring.job import ScoringJob
from ost_hf.scoring.side_tables import Build, scored_by
from ost_hf.shares import quota_of
from ost_hf.tables.score_table import ScoreTable

logger = logging.getLogger(__name__)

Utilities = dict[int, float]

# Below this Spearman correlation with exact steps first order says too little.
_TRUSTED = 0.8


@dataclass(frozen=True)
class Agreement:
    """How first order and exact steps agree.

    ``spearman`` is over the random calibration sample; ``kept_overlap`` is the share of the kept set that
    first order alone would have kept too; ``ranks_moved`` counts rows whose rank changed, and
    ``largest_move`` is by how many ranks at most.
    """

    calibration_rows: int
    exact_rows: int
    spearman: float | None
    slope: float
    kept: int
    kept_overlap: float
    ranks_moved: int
    largest_move: int

    def __str__(self) -> str:
        return (
            f"cascade: Spearman {'unknown' if self.spearman is None else format(self.spearman, '.4f')} with exact on "
            f"{self.calibration_rows} random rows; "
            f"{self.exact_rows} rows scored exactly; {self.kept_overlap:.1%} of the {self.kept} kept rows are those of "
            f"first order alone; {self.ranks_moved} ranks moved, by {self.largest_move} at most"
        )


def run_cascade(job: ScoringJob, first: ScoreTable, build: Build) -> pa.Table:
    """Steps exactly on the rows that matter, and brings the others' utilities to the same scale.

    Args:
        job: With the options of this stage; its manifest gets the agreement.
        first: First-order utilities of the whole pool.
        build: Makes the scorer of a configuration.

    Returns:
        ``row``, ``utility``, ``utility_se``, ``utility_first_order`` and ``utility_exact`` of each row with a utility.
    """
    options: CascadeOptions = job.config.stage_options
    first_order = _column(first, "utility", range(len(job.pool)))
    calibration = calibration_rows(first_order, options.calibration, job.config.seed)
    chosen = sorted(calibration | band_rows(first_order, job.candidates, options))
    by_steps = replace(job.config, second_stage=None, per_turn=False).with_options(estimator="exact")
    costly = scored_by(job, build, by_steps, "exact", chosen)
    exact = _column(costly, "utility", chosen)
    slope = _slope({row: first_order[row] for row in calibration}, exact)
    final = {row: exact.get(row, slope * utility) for row, utility in first_order.items()}
    if is_main():
        agreement = agree(first_order, exact, final, calibration, quota_of(options.share, job.candidates), slope)
        logger.info("%s", agreement)
        if slope <= 0 or not (agreement.spearman or 0) >= _TRUSTED:
            logger.warning(
                "first order ranks unlike the exact step here (slope %.2g): the rows that were not scored exactly are "
                "not to be trusted; use estimator exact, or a smaller learning rate",
                slope,
            )
        job.table.add_to_manifest(cascade=asdict(agreement))
    errors = _column(costly, "utility_se", chosen)
    first_errors = _column(first, "utility_se", range(len(job.pool)))
    error_of = {row: abs(slope) * error for row, error in first_errors.items()} | errors
    rows = sorted(first_order)
    columns = {"utility": final, "utility_se": error_of, "utility_first_order": first_order, "utility_exact": exact}
    added = {name: pa.array([values.get(row) for row in rows], pa.float64()) for name, values in columns.items()}
    return pa.table({"row": pa.array(rows, pa.int64()), **added})


def _column(part: ScoreTable, name: str, rows: Iterable[int]) -> Utilities:
    """One column by row, of some rows, where it is not empty."""
    wanted = set(rows)
    if not wanted:
        return {}
    table = part.read(complete=False, columns=["row", name])
    pairs = zip(table["row"].to_pylist(), table[name].to_pylist(), strict=True)
    return {row: value for row, value in pairs if row in wanted and value is not None}


def calibration_rows(first_order: Utilities, count: int, seed: int) -> set[int]:
    """A seeded random sample of so many of the rows that have a utility."""
    return set(random.Random(seed).sample(sorted(first_order), min(count, len(first_order))))


def band_rows(first_order: Utilities, pool_size: int, options: CascadeOptions) -> set[int]:
    """The rows ranked around the cut-off, ``band`` of the pool, half of them on either side."""
    order = _order(first_order)
    cut = quota_of(options.share, pool_size)
    half = round(options.band * pool_size / 2)
    return set(order[max(0, cut - half) : cut + half])


def agree(
    first_order: Utilities,
    exact: Utilities,
    final: Utilities,
    calibration: set[int],
    quota: int,
    slope: float,
) -> Agreement:
    """Compares the ranking of first order with the final one, of which ``quota`` rows are kept."""
    before, after = _order(first_order), _order(final)
    quota = min(quota, len(after))
    place = {row: rank for rank, row in enumerate(before)}
    moves = [abs(rank - place[row]) for rank, row in enumerate(after)]
    both = sorted(row for row in calibration if row in exact)
    correlation = spearman([first_order[row] for row in both], [exact[row] for row in both])
    return Agreement(
        len(both),
        len(exact),
        None if math.isnan(correlation) else correlation,
        slope,
        quota,
        len(set(before[:quota]) & set(after[:quota])) / max(1, quota),
        sum(move > 0 for move in moves),
        max(moves, default=0),
    )


def _order(utilities: Utilities) -> list[int]:
    return sorted(utilities, key=lambda row: (-utilities[row], row))


def _slope(first_order: Utilities, exact: Utilities) -> float:
    """Least squares through the origin: both are zero for a candidate that moves nothing."""
    pairs = [(x, exact[row]) for row, x in first_order.items() if row in exact]
    square = sum(x * x for x, _ in pairs)
    return sum(x * y for x, y in pairs) / square if square else 1.0
