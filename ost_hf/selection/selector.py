"""Ranks a score table and says for each row whether it is kept, or why not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ost_hf.errors import DataError
from ost_hf.selection.aggregation import aggregate
from ost_hf.selection.candidates import Candidates, Order
from ost_hf.selection.columns import more_columns, numbers, one_judge, pool_p_of, without_vectors
from ost_hf.selection.config import BY_KIND, SelectionConfig
from ost_hf.selection.kept import Selection
from ost_hf.selection.kinds import Kinds, kinds_of
from ost_hf.selection.orders import ORDER_FUNCTIONS
from ost_hf.selection.strata import rooms, strata_of
from ost_hf.selection.turns import corrupted_turns, masked_in_words
from ost_hf.selection.verdicts import check_toxicity, verdicts_of
from ost_hf.selection.weights import weights_of
from ost_hf.settings import as_mapping
from ost_hf.tables.score_table import p_value_anchors
from ost_hf.tables.selection_table import MASKED, TURNS, WEIGHT, SelectionMetadata, selection_schema
from ost_hf.tables.statuses import COPY_STATUSES
from ost_hf.tables.vectors import matrix

logger = logging.getLogger(__name__)

Record = dict[str, Any]


def select_rows(
    scores: pa.Table,
    config: SelectionConfig | None = None,
    anchors: pa.Table | None = None,
    balance: Sequence[Any] | None = None,
) -> Selection:
    """Keeps the best rows.

    Args:
        scores: A score table: ``example_id``, ``row``, ``utility``, ``status``, and what an order needs.
        config: How much to keep, and in which order. A share counts all rows of the pool but dropped copies,
            unscored ones included.
        anchors: The anchors' own scores (``anchors.parquet``), beside the score table in a run directory: set-wise
            selection reads their sketches.
        balance: The value of ``config.balance_by`` for each row of the table.

    Returns:
        The selection. Equal utilities are ordered by ``example_id``, so that the result does not
        depend on the order of the pool.

    Raises:
        ConfigError: If the scores lack what the selection goes by.
        DataError: If nothing would be kept.
    """
    config = config or SelectionConfig()
    config.check(more_columns(scores))
    check_toxicity(scores, config)
    scored, verdict = _scored_rows(scores, config)
    usable = [place for place, record in enumerate(scored) if _refusal(record, config) is None]
    dropped = pc.sum(pc.is_in(scores["status"], pa.array(COPY_STATUSES))).as_py() or 0
    quota = config.quota(len(scores) - dropped)
    kinds = kinds_of(scores) if config.order in BY_KIND or config.weighted_loss else None
    explanation = "no row can be kept"
    if usable:
        records = [scored[place] for place in usable]
        stratum = _strata(records, scores, config, balance)
        candidates = _candidates(records, scores, config, anchors, quota, stratum, kinds)
        order = ORDER_FUNCTIONS[config.order](candidates)
        explanation = order.explanation
        _warn(order)
        _mark(scored, usable, order, candidates)
    _mark_refused(scored, len(usable), config)
    table = _table(scores, scored, config, verdict)
    table, said = _with_weights(table, scores, kinds, config)
    explanation += said
    logger.info("selection: %s", explanation)
    _warn_of_less(table, quota, config)
    return Selection(table, SelectionMetadata(as_mapping(config), explanation))


def _warn(order: Order) -> None:
    """Says what should be known before the choice is trusted."""
    if order.warning is not None:
        logger.warning("selection: %s", order.warning)


def _warn_of_less(table: pa.Table, quota: int, config: SelectionConfig) -> None:
    """Says so where less is kept than was asked for; ``min_utility`` alone asks for no number."""
    kept = pc.sum(table["kept"]).as_py()
    if kept < quota and (config.keep_count or config.keep_ratio or config.min_utility is None):
        left_out = table.filter(pc.invert(table["kept"]))["reason"].value_counts().to_pylist()
        reasons = ", ".join(f"{reason['counts']} {reason['values']}" for reason in left_out)
        logger.warning("selection: %d rows were asked for, %d are kept: %s", quota, kept, reasons)


def _scored_rows(scores: pa.Table, config: SelectionConfig) -> tuple[list[Record], bool]:
    """The rows with a utility, sorted by id, with their aggregated utility and verdict; and whether there is one."""
    # Sketches are the bulk of a table: sorting need not copy them.
    table = without_vectors(scores)
    table = table.filter(pc.is_finite(table["utility"]))
    table = table.append_column("place", pa.array(range(len(table)))).sort_by("example_id")
    utility = _aggregated(table, config)
    records = table.select(["example_id", "row", "status"]).to_pylist()
    verdict = verdicts_of(table, config)
    corrupted = corrupted_turns(table) if config.mask_turns else None
    for place, record in enumerate(records):
        record["utility"] = float(utility[place])
        if corrupted is not None:
            record[TURNS], record[MASKED] = corrupted[place]
        if verdict is not None:
            record["verdict"] = str(verdict[place])
    if config.drop_toxic and verdict is None:
        raise DataError(
            "selection.drop_toxic needs p-values: score with a second look, or with scoring.per_anchor and two anchors "
            "at least"
        )
    return records, verdict is not None


def _aggregated(table: pa.Table, config: SelectionConfig) -> NDArray[np.float64]:
    """The utility of each row, made one of many where the selection asks for it."""
    if config.aggregate is None or not len(table):
        return table["utility"].to_numpy().astype(np.float64)
    if config.aggregate_over == "anchors":
        columns = [name for name in ("anchor_utilities", "anchor_similarities") if name in table.column_names]
        values = matrix(table, columns[0]) if columns else None
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


def _strata(
    records: list[Record], scores: pa.Table, config: SelectionConfig, balance: Sequence[Any] | None
) -> NDArray[np.int64]:
    """The stratum of each candidate; all are of one where nothing is balanced."""
    if config.balance_by is not None and balance is None:
        raise DataError(f"selection.balance_by: the values of {config.balance_by!r} were not given; run with the pool")
    if config.length_strata > 1:
        tokens = dict(zip(scores["row"].to_pylist(), scores["tokens"].to_pylist(), strict=True))
        return strata_of([tokens[record["row"]] for record in records], config.length_strata)
    if balance:
        values = {int(row): value for row, value in zip(scores["row"].to_pylist(), balance, strict=True)}
        return strata_of([values[record["row"]] for record in records])
    return np.zeros(len(records), dtype=np.int64)


def _candidates(
    records: list[Record],
    scores: pa.Table,
    config: SelectionConfig,
    anchors: pa.Table | None,
    quota: int,
    stratum: NDArray[np.int64],
    kinds: Kinds | None,
) -> Candidates:
    place_of = {row: place for place, row in enumerate(scores["row"].to_pylist())}
    places = np.asarray([place_of[record["row"]] for record in records], dtype=np.int64)
    table = without_vectors(scores).take(places)
    quota = min(quota, len(records))
    return Candidates(
        utility=np.asarray([record["utility"] for record in records]),
        quota=quota,
        stratum=stratum,
        room=rooms(stratum, quota, config.balance),
        corrupted_p=numbers(table, "corrupted_p"),
        late_loss=numbers(table, "late_loss"),
        kinds=kinds.at(places) if kinds is not None and config.order in BY_KIND else None,
        sketch=matrix(scores, "sketch", places),
        anchor_sketch=matrix(anchors, "sketch") if anchors is not None else None,
        diversity_threshold=config.diversity_threshold,
        pool_p=pool_p_of(scores),
        p_value_anchors=p_value_anchors(scores),
        one_judge=one_judge(scores),
        seed=config.seed,
    )


def _refusal(record: Record, config: SelectionConfig) -> str | None:
    """Why a scored row may not be kept, whatever its place."""
    if config.min_utility is not None and record["utility"] < config.min_utility:
        return f"utility below {config.min_utility:g}"
    if config.drop_toxic and record.get("verdict") == "toxic":
        return "toxic"
    if record.get(MASKED) and len(record[MASKED]) == record[TURNS]:
        return "every turn looks corrupted"
    return None


def _mark(scored: list[Record], usable: list[int], order: Order, candidates: Candidates) -> None:
    full = len(np.unique(candidates.stratum)) > 1
    for rank, place in enumerate([*order.kept, *order.others], start=1):
        record = scored[usable[place]]
        after = f"ranked after the first {len(order.kept)}" + (" or its stratum has its part" if full else "")
        record |= {"rank": rank, "reason": "kept" if rank <= len(order.kept) else order.left_out or after}


def _with_weights(
    table: pa.Table, scores: pa.Table, kinds: Kinds | None, config: SelectionConfig
) -> tuple[pa.Table, str]:
    """The table with weights, where they are asked for, and what an explanation is to say of them and of turns."""
    said = masked_in_words(table) if config.mask_turns else ""
    if config.weighted_loss:
        weights, of_weights = weights_of(scores, table, kinds)
        table, said = table.append_column(WEIGHT, weights), f"{said}; {of_weights}"
    return table, said


def _mark_refused(scored: list[Record], usable: int, config: SelectionConfig) -> None:
    rest = [record for record in scored if "rank" not in record]
    for rank, record in enumerate(sorted(rest, key=lambda record: -record["utility"]), start=usable + 1):
        record |= {"rank": rank, "reason": _refusal(record, config)}


def _table(scores: pa.Table, scored: list[Record], config: SelectionConfig, verdict: bool) -> pa.Table:
    by_row = {record["row"]: record for record in scored}
    records = []
    for record in scores.select(["example_id", "row", "status"]).to_pylist():
        found = by_row.get(record["row"], {"utility": None, "rank": None, "reason": f"not scored: {record['status']}"})
        is_kept = found["reason"] == "kept"
        records.append({**record, **found, "kept": is_kept} | ({} if is_kept else {MASKED: None}))
    if not any(record["kept"] for record in records):
        best = max((record["utility"] for record in scored), default=None)
        found_best = "no row of the pool has a utility" if best is None else f"the highest utility is {best:g}"
        raise DataError(f"nothing would be kept with {config}: {found_best}")
    records.sort(key=lambda record: record["row"])
    more = [*(["verdict"] if verdict else []), *([TURNS, MASKED] if config.mask_turns else [])]
    return pa.Table.from_pylist(records, schema=selection_schema(*more))
