"""Ranks a score table and says for each row whether it is kept, or why not.

The selection table has one row per candidate in the pool's order: ``example_id``, ``row``, ``utility``,
``rank`` (1 is best; null without a utility), ``kept``, ``reason``, and where there are p-values ``verdict``.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ost_hf.duplicates.find import COPY_STATUSES
from ost_hf.errors import DataError, RunDirectoryError
from ost_hf.evidence.conformal import least_p
from ost_hf.evidence.toxicity import hurts_p, least_hurts_p, verdicts
from ost_hf.files import write_whole
from ost_hf.selection.aggregation import aggregate
from ost_hf.selection.config import SelectionConfig
from ost_hf.selection.strata import rooms, strata_of
from ost_hf.selection.strategies import STRATEGY_FUNCTIONS, UNKNOWN_ANCHORS, Candidates, Order

logger = logging.getLogger(__name__)

COLUMNS = ("example_id", "row", "utility", "rank", "kept", "reason")

Record = dict[str, Any]


def select(
    scores: pa.Table,
    config: SelectionConfig | None = None,
    anchors: pa.Table | None = None,
    balance: Sequence[Any] | None = None,
) -> pa.Table:
    """Keeps the best rows.

    Args:
        scores: A score table: ``example_id``, ``row``, ``utility``, ``status``, and what a strategy needs.
        config: How much to keep, and by which strategy. A share counts all rows of the pool but dropped copies,
            unscored ones included.
        anchors: The anchors' own scores (``anchors.parquet``); set-wise selection reads their sketches.
        balance: The value of ``config.balance_by`` for each row of the table.

    Returns:
        The selection table. Equal utilities are ordered by ``example_id``, so that the result does not
        depend on the order of the pool.

    Raises:
        DataError: If nothing would be kept, or a strategy lacks what it needs.
    """
    config = config or SelectionConfig()
    _check_toxicity(scores, config, anchors)
    scored, verdict = _scored_rows(scores, config)
    usable = [place for place, record in enumerate(scored) if _refusal(record, config) is None]
    dropped = pc.sum(pc.is_in(scores["status"], pa.array(COPY_STATUSES))).as_py() or 0
    quota = config.quota(len(scores) - dropped)
    explanation = "no row can be kept"
    if usable:
        values = (
            {int(row): value for row, value in zip(scores["row"].to_pylist(), balance, strict=True)}
            if balance
            else None
        )
        candidates = _candidates([scored[place] for place in usable], scores, config, anchors, quota, values)
        config.check_aggregate(second_look=candidates.pool_p is not None and not np.isnan(candidates.pool_p).all())
        order = STRATEGY_FUNCTIONS[config.strategy](candidates)
        explanation = order.explanation
        _mark(scored, usable, order, candidates)
    rest = [place for place in range(len(scored)) if "rank" not in scored[place]]
    for rank, place in enumerate(sorted(rest, key=lambda place: -scored[place]["utility"]), start=len(usable) + 1):
        scored[place] |= {"rank": rank, "reason": _refusal(scored[place], config)}
    table = _table(scores, scored, config, explanation, verdict)
    _warn_of_less(table, quota, config)
    return table


def _warn_of_less(table: pa.Table, quota: int, config: SelectionConfig) -> None:
    """Says so where less is kept than was asked for; ``min_utility`` alone asks for no number."""
    kept = pc.sum(table["kept"]).as_py()
    if kept < quota and (config.keep_count or config.keep_ratio or config.min_utility is None):
        left_out = table.filter(pc.invert(table["kept"]))["reason"].value_counts().to_pylist()
        reasons = ", ".join(f"{reason['counts']} {reason['values']}" for reason in left_out)
        logger.warning("selection: %d rows were asked for, %d are kept: %s", quota, kept, reasons)


def _check_toxicity(scores: pa.Table, config: SelectionConfig, anchors: pa.Table | None) -> None:
    """Raises ``DataError`` where no row could be called toxic, however corrupted."""
    rate, of_utilities = config.false_discovery_rate, _anchors_of_utilities(scores)
    if not config.drop_toxic or (of_utilities and least_hurts_p(of_utilities) <= rate):
        return
    if _numbers(scores, "corrupted_p") is None:
        if of_utilities:
            lowest = least_hurts_p(of_utilities)
            raise DataError(
                f"selection.drop_toxic could drop nothing: with {of_utilities} anchors no p-value of 'hurts the "
                f"anchors' is below {lowest:.2g}, and selection.false_discovery_rate is {rate:g}. Score with more "
                "anchors, ask a higher rate, or leave drop_toxic unset"
            )
        return
    count = _p_value_anchors(scores, anchors)
    if count is None:
        raise DataError(UNKNOWN_ANCHORS)
    lowest = least_p(count)
    if lowest > rate:
        raise DataError(
            f"selection.drop_toxic could drop nothing: with {count} anchors no p-value of 'corrupted' is below "
            f"{lowest:.2g}, and selection.false_discovery_rate is {rate:g}. Score with {math.ceil(1 / rate - 1)} "
            "anchors at least (several times as many tell more), or leave drop_toxic unset"
        )


def _anchors_of_utilities(table: pa.Table) -> int:
    """How many anchors the column ``anchor_utilities`` is of; 0 without one."""
    if "anchor_utilities" not in table.column_names:
        return 0
    return pc.max(pc.list_value_length(table["anchor_utilities"])).as_py() or 0


def _scored_rows(scores: pa.Table, config: SelectionConfig) -> tuple[list[Record], bool]:
    """The rows with a utility, sorted by id, with their aggregated utility and verdict; and whether there is one."""
    # Sketches are the bulk of a table: sorting need not copy them.
    table = _without_sketches(scores)
    table = table.filter(pc.is_finite(table["utility"]))
    table = table.append_column("place", pa.array(range(len(table)))).sort_by("example_id")
    utility = _aggregated(table, config)
    records = table.select(["example_id", "row", "status"]).to_pylist()
    verdict = _verdicts(table, config)
    for place, record in enumerate(records):
        record["utility"] = float(utility[place])
        if verdict is not None:
            record["verdict"] = str(verdict[place])
    if config.drop_toxic and verdict is None:
        raise DataError(
            "selection.drop_toxic needs p-values: score with scoring.second_look, or with scoring.per_anchor and two "
            "anchors at least"
        )
    return records, verdict is not None


def _aggregated(table: pa.Table, config: SelectionConfig) -> NDArray[np.float64]:
    if config.aggregate is None or not len(table):
        return table["utility"].to_numpy().astype(np.float64)
    if config.aggregate_over == "anchors":
        columns = [name for name in ("anchor_utilities", "anchor_similarities") if name in table.column_names]
        values = _matrix(table, columns[0]) if columns else None
        if values is None:
            raise DataError(
                "selection.aggregate_over 'anchors' needs the column anchor_utilities (rds: anchor_similarities): set "
                "scoring.per_anchor"
            )
    else:
        names = [name for name in table.column_names if name.startswith("group:")]
        if not names:
            raise DataError(
                "selection.aggregate needs columns group:NAME: score with scoring.group_by, or aggregate_over anchors"
            )
        values = np.stack([table[name].to_numpy() for name in names], axis=1)
    return aggregate(values.astype(np.float64), config.aggregate)


def _verdicts(table: pa.Table, config: SelectionConfig) -> NDArray[np.str_] | None:
    corrupted = _numbers(table, "corrupted_p")
    if corrupted is not None:
        # A row without a second look is not called corrupted.
        corrupted = None if np.isnan(corrupted).all() else np.nan_to_num(corrupted, nan=1.0)
    per_anchor = _matrix(table, "anchor_utilities")
    hurts = helps = None
    if per_anchor is not None and per_anchor.shape[1] > 1:
        hurts, helps = (hurts_p(sign * per_anchor.astype(np.float64), seed=config.seed) for sign in (1, -1))
    if corrupted is None and hurts is None:
        return None
    return verdicts(config.false_discovery_rate, hurts, helps, corrupted)


def _numbers(table: pa.Table, column: str) -> NDArray[np.float64] | None:
    """A column as ``[rows]``, NaN where it is empty; ``None`` if there is none."""
    return table[column].to_numpy().astype(np.float64) if column in table.column_names else None


def _matrix(table: pa.Table, column: str, places: NDArray[np.int64] | None = None) -> NDArray[np.float32] | None:
    """A list column as ``[rows, numbers]``, or the rows at ``places``; ``None`` if there is none, or one lacks it."""
    if column not in table.column_names or not len(table):
        return None
    if places is None:
        places = np.arange(len(table))
    valid = table[column].is_valid().to_numpy()
    if not len(places) or not valid[places].all():
        return None
    size = len(table[column][int(places[0])].values)
    result = np.empty((len(places), size), dtype=np.float32)
    target = np.full(len(table), -1, dtype=np.int64)
    target[places] = np.arange(len(places))
    start = 0
    # Chunk by chunk, and from a chunk's own memory: a column of sketches should be in memory twice, not five times.
    for chunk in table[column].chunks:
        wanted = target[start : start + len(chunk)][valid[start : start + len(chunk)]]
        numbers = chunk.flatten().to_numpy(zero_copy_only=False).reshape(len(wanted), size)
        result[wanted[wanted >= 0]] = numbers[wanted >= 0]
        start += len(chunk)
    return result


def _without_sketches(table: pa.Table) -> pa.Table:
    return table.drop_columns(["sketch"]) if "sketch" in table.column_names else table


def _candidates(
    records: list[Record],
    scores: pa.Table,
    config: SelectionConfig,
    anchors: pa.Table | None,
    quota: int,
    values: dict[int, Any] | None,
) -> Candidates:
    if config.balance_by is not None and values is None:
        raise DataError(f"selection.balance_by: the values of {config.balance_by!r} were not given; run with the pool")
    place_of = {row: place for place, row in enumerate(scores["row"].to_pylist())}
    places = np.asarray([place_of[record["row"]] for record in records], dtype=np.int64)
    table = _without_sketches(scores).take(places)
    if config.length_strata > 1:
        stratum = strata_of(table["tokens"].to_pylist(), config.length_strata)
    elif values is not None:
        stratum = strata_of([values[record["row"]] for record in records])
    else:
        stratum = np.zeros(len(records), dtype=np.int64)

    quota = min(quota, len(records))
    pool_p = _numbers(scores, "corrupted_p")
    return Candidates(
        utility=np.asarray([record["utility"] for record in records]),
        quota=quota,
        stratum=stratum,
        room=rooms(stratum, quota, config.balance),
        corrupted_p=_numbers(table, "corrupted_p"),
        late_loss=_numbers(table, "late_loss"),
        sketch=_matrix(scores, "sketch", places),
        anchor_sketch=_matrix(anchors, "sketch") if anchors is not None else None,
        diversity_threshold=config.diversity_threshold,
        pool_p=pool_p,
        p_value_anchors=_p_value_anchors(scores, anchors),
        seed=config.seed,
    )


def _p_value_anchors(scores: pa.Table, anchors: pa.Table | None) -> int | None:
    """How many anchors p-values were made with, as a score table's metadata says; else as many as are given."""
    said = (scores.schema.metadata or {}).get(b"corrupted_p_anchors")
    if said is not None:
        return int(said)
    return len(anchors) if anchors is not None else None


def _refusal(record: Record, config: SelectionConfig) -> str | None:
    """Why a scored row may not be kept, whatever its place."""
    if config.min_utility is not None and record["utility"] < config.min_utility:
        return f"utility below {config.min_utility:g}"
    if config.drop_toxic and record.get("verdict") == "toxic":
        return "toxic"
    return None


def _mark(scored: list[Record], usable: list[int], order: Order, candidates: Candidates) -> None:
    full = len(np.unique(candidates.stratum)) > 1
    for rank, place in enumerate([*order.kept, *order.others], start=1):
        record = scored[usable[place]]
        after = f"ranked after the first {len(order.kept)}" + (" or its stratum has its part" if full else "")
        record |= {"rank": rank, "reason": "kept" if rank <= len(order.kept) else order.left_out or after}


def _table(
    scores: pa.Table, scored: list[Record], config: SelectionConfig, explanation: str, verdict: bool
) -> pa.Table:
    by_row = {record["row"]: record for record in scored}
    records = []
    for record in scores.select(["example_id", "row", "status"]).to_pylist():
        found = by_row.get(record["row"], {"utility": None, "rank": None, "reason": f"not scored: {record['status']}"})
        records.append({**record, **found, "kept": found["reason"] == "kept"})
    if not any(record["kept"] for record in records):
        best = max((record["utility"] for record in scored), default=None)
        found_best = "no row of the pool has a utility" if best is None else f"the highest utility is {best:g}"
        raise DataError(f"nothing would be kept with {config}: {found_best}")
    records.sort(key=lambda record: record["row"])
    types = [pa.string(), pa.int64(), pa.float64(), pa.int64(), pa.bool_(), pa.string()]
    fields = list(zip(COLUMNS, types, strict=True)) + ([("verdict", pa.string())] if verdict else [])
    logger.info("selection: %s", explanation)
    metadata = {"selection": json.dumps(asdict(config)), "explanation": explanation}
    return pa.Table.from_pylist(records, schema=pa.schema(fields, metadata=metadata))


def write_selection(table: pa.Table, path: str | Path) -> None:
    """Writes a selection table; whole or not at all."""
    write_whole(Path(path), lambda temporary: pq.write_table(table, temporary))


def read_selection(path: str | Path) -> pa.Table:
    """Reads ``selection.parquet``, given the file or its run directory.

    Raises:
        RunDirectoryError: If there is none, or a column is missing.
    """
    path = Path(path)
    path = path / "selection.parquet" if path.is_dir() else path
    if not path.exists():
        raise RunDirectoryError(f"no selection table at {path}: run the select stage first")
    table = pq.read_table(path)
    missing = [name for name in ("example_id", "row", "kept") if name not in table.column_names]
    if missing:
        raise RunDirectoryError(f"{path} is no selection table: it lacks {', '.join(missing)}")
    return table
