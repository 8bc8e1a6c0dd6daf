"""Cheap on all, exact where it matters: first order ranks the pool, exact steps settle the cut-off.

Three tables: ``first_order/`` has every row, ``exact/`` a random calibration sample and the band of rows around
the cut-off, and the score table itself both: a row's exact utility where there is one, else its first-order
utility times the slope that the calibration sample shows. How far the two agree goes into the manifest.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ost_hf.data.encoding import EncodedDataset
from ost_hf.evidence.rank_correlation import spearman
from ost_hf.parallel import barrier, free_memory, is_main
from ost_hf.scorers.base import Scorer
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.loop import run_scorer
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


def run_cascade(
    build: Callable[..., Scorer],
    pool: EncodedDataset,
    table: ScoreTable,
    exclude: Mapping[int, tuple[str, str]],
    config: ScoringConfig,
) -> None:
    """Scores the whole pool into ``table``, and what leads there into two tables beside its parts.

    Args:
        build: Makes the scorer of a configuration.
        pool: The candidates, encoded for the proxy.
        table: The score table; its manifest is written already and gets the agreement.
        exclude: Rows that are not scored: the status and the detail each gets in the table.
        config: With estimator ``cascade``.
    """
    cheap = _scored(build, "reverse", range(len(pool)), pool, table, exclude, config)
    first_order = _column(cheap, "utility", range(len(pool)))
    calibration = calibration_rows(first_order, config)
    # Copies that were dropped are no part of the pool of which a share is kept.
    pool_size = len(pool) - len(exclude)
    chosen = sorted(calibration | band_rows(first_order, pool_size, config))
    costly = _scored(build, "exact", chosen, pool, table, exclude, config)
    exact = _column(costly, "utility", chosen)
    slope = _slope({row: first_order[row] for row in calibration}, exact)
    final = {row: exact.get(row, slope * utility) for row, utility in first_order.items()}
    if is_main():
        agreement = agree(first_order, exact, final, calibration, config.cascade_share, pool_size, slope)
        logger.info("%s", agreement)
        if slope <= 0 or not (agreement.spearman or 0) >= _TRUSTED:
            logger.warning(
                "first order ranks unlike the exact step here (slope %.2g): the rows that were not scored exactly are "
                "not to be trusted; use estimator exact, or a smaller learning rate",
                slope,
            )
        table.add_to_manifest(cascade=asdict(agreement))
        errors, done, whole = _column(costly, "utility_se", chosen), table.rows_done(), cheap.read()
        # A part at a time is made Python objects.
        for start in range(0, len(whole), config.part_size):
            records = whole.slice(start, config.part_size).to_pylist()
            missing = [_merge(row, final, exact, errors, slope) for row in records if row["row"] not in done]
            if missing:
                table.write_part(missing)
    barrier()


def _scored(
    build: Callable[..., Scorer],
    estimator: str,
    rows: Iterable[int],
    pool: EncodedDataset,
    table: ScoreTable,
    exclude: Mapping[int, tuple[str, str]],
    config: ScoringConfig,
) -> ScoreTable:
    """The table of ``rows`` by one estimator; those that an earlier run has stored are not scored again."""
    wanted = sorted(rows)
    part = ScoreTable(table.folder / {"reverse": "first_order"}.get(estimator, estimator))
    missing = sorted(set(wanted) - part.rows_done())
    if is_main():
        part.write_manifest({"estimator": estimator}, rows=len(wanted))
    barrier()
    if missing:
        scorer = build(config=replace(config, estimator=estimator))
        run_scorer(scorer, pool, part, missing, exclude, config)
        del scorer
        free_memory()
    return part


def _column(part: ScoreTable, name: str, rows: Iterable[int]) -> Utilities:
    """One column by row, of some rows, where it is not empty."""
    wanted = set(rows)
    if not wanted:
        return {}
    table = part.read(complete=False, columns=["row", name])
    pairs = zip(table["row"].to_pylist(), table[name].to_pylist(), strict=True)
    return {row: value for row, value in pairs if row in wanted and value is not None}


def calibration_rows(first_order: Utilities, config: ScoringConfig) -> set[int]:
    """A seeded random sample of the rows that have a utility."""
    count = min(config.cascade_calibration, len(first_order))
    return set(random.Random(config.seed).sample(sorted(first_order), count))


def band_rows(first_order: Utilities, pool_size: int, config: ScoringConfig) -> set[int]:
    """The rows ranked around the cut-off, ``cascade_band`` of the pool, half of them on either side."""
    order = _order(first_order)
    cut = quota_of(config.cascade_share, pool_size)
    half = round(config.cascade_band * pool_size / 2)
    return set(order[max(0, cut - half) : cut + half])


def agree(
    first_order: Utilities,
    exact: Utilities,
    final: Utilities,
    calibration: set[int],
    keep_ratio: float,
    pool_size: int,
    slope: float,
) -> Agreement:
    """Compares the ranking of first order with the final one."""
    before, after = _order(first_order), _order(final)
    quota = min(quota_of(keep_ratio, pool_size), len(after))
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


def _merge(
    record: dict[str, Any], final: Utilities, exact: Utilities, errors: Utilities, slope: float
) -> dict[str, Any]:
    row, error = record["row"], record["utility_se"]
    return record | {
        "utility": final.get(row),
        "utility_se": errors.get(row) if row in exact else error and abs(slope) * error,
        "utility_first_order": record["utility"],
        "utility_exact": exact.get(row),
    }
