"""What an arm kept, how well its scores tell clean rows from others, and what its target can do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ost_hf.data.rows import Rows
from ost_hf.errors import DataError
from ost_hf.evidence.contamination import contamination_evidence
from ost_hf.runs.config import RunConfig
from ost_hf.selection.auto import as_clean_as_anchors
from ost_hf.selection.kept import read_selection
from ost_hf.study.statistics import area_under_curve, extra_copies_kept
from ost_hf.tables.score_table import P_VALUE_ANCHORS, ScoreTable, p_value_anchors

Record = dict[str, Any]

# Beside the utility: columns of either look that rank rows too, and whether more is better.
_RANKING_COLUMNS = {"loss": -1, "late_loss": -1, "corrupted_p": 1}


def describe_arm(
    config: RunConfig, truth: Record | None, count_by: Sequence[str] = (), copies: str | None = None
) -> Record:
    """Exact match, kept rows, and the log's words on how they were chosen.

    Args:
        config: The arm's.
        truth: ``column`` and its value for ``clean`` rows.
        count_by: Columns of the pool of whose values the kept share is told.
        copies: Column of the pool whose equal values tell copies of one another.

    Raises:
        DataError: If no row of the pool is ``truth``'s clean, or none is a copy of another.
    """
    metrics = json.loads((config.folder / "metrics.json").read_text())
    selection = read_selection(config.folder)
    table = selection.table
    kept = [row for row, is_kept in zip(table["row"].to_pylist(), table["kept"].to_pylist(), strict=True) if is_kept]
    result: Record = {
        "score": metrics["exact_match"],
        "by_group": metrics.get("by_group", {}),
        "rows_kept": len(kept),
        "rows_pool": len(table),
        "steps": config.training.get("max_steps"),
        "explanation": selection.explanation,
    }
    pool = Rows.load(config.pool).dataset if config.pool is not None and (count_by or copies is not None) else None
    if pool is not None and copies is not None:
        result["extra_copies_kept"] = extra_copies_kept(pool[copies], kept)
        if result["extra_copies_kept"] is None:
            raise DataError(f"copies: no two rows of the pool share a value of the column {copies!r}")
    for column in count_by:
        assert pool is not None
        values = list(map(str, pool[column]))
        count, of_pool = Counter(values[row] for row in kept), Counter(values)
        result.setdefault("kept_share", {})[column] = {value: count[value] / of_pool[value] for value in of_pool}
    kinds = _kinds(config, truth)
    if truth is not None and kinds is not None:
        count, of_pool = Counter(kinds[row] for row in kept), Counter(kinds)
        result["clean_share"] = count[str(truth["clean"])] / len(kept)
        result["kept_by"] = {kind: count[kind] / number for kind, number in sorted(of_pool.items())}
        if "verdict" in table.column_names:
            pairs = zip(table["row"].to_pylist(), table["verdict"].to_pylist(), strict=True)
            found = Counter((kinds[row], verdict) for row, verdict in pairs)
            verdicts = sorted({verdict or "none" for _, verdict in found})
            result["verdicts"] = {
                kind: {name: found[kind, None if name == "none" else name] for name in verdicts} for kind in of_pool
            }
    return result


def describe_choice(config: RunConfig) -> Record:
    """How far a choice leans on the second look; nothing where there was none.

    Returns:
        ``leans``: the share of the pool with p-values that count as clean, and of what was kept; and the share of the
        kept rows that the highest utilities alone would have kept.
    """
    table = ScoreTable(config.folder / "scores").read(columns=["row", "utility", "corrupted_p", P_VALUE_ANCHORS])
    if config.selection.order != "auto" or "corrupted_p" not in table.column_names:
        return {}
    p_values, utility = (table[name].to_numpy().astype(np.float64) for name in ("corrupted_p", "utility"))
    kept = read_selection(config.folder).table["kept"].to_numpy()
    highest = np.argsort(np.nan_to_num(-utility, nan=np.inf), kind="stable")[: kept.sum()]
    if np.isnan(p_values).all():
        return {}  # every row's second look failed, and `auto` ranked by utility
    anchors = p_value_anchors(table)
    assert anchors is not None
    as_clean = np.zeros(len(p_values), dtype=bool)
    as_clean[as_clean_as_anchors(p_values, contamination_evidence(p_values, anchors))] = True
    return {
        "leans": {
            "pool_as_clean": float(as_clean.mean()),
            "kept_as_clean": float(as_clean[kept].mean()),
            "kept_by_utility_too": float(kept[highest].mean()),
        }
    }


def describe_scores(config: RunConfig, truth: Record | None) -> Record:
    """The AUC of clean against other rows, by utility and by what else a score table ranks with."""
    kinds = _kinds(config, truth)
    if truth is None or kinds is None:
        return {}
    table = ScoreTable(config.folder / "scores").read(columns=["row", "utility", *_RANKING_COLUMNS])
    clean = np.asarray([kinds[row] == str(truth["clean"]) for row in table["row"].to_pylist()])
    result = {}
    for column, sign in {"utility": 1, **_RANKING_COLUMNS}.items():
        if column in table.column_names:
            values = sign * table[column].to_numpy().astype(np.float64)
            result[column] = area_under_curve(values, clean)
    return {"auc": result}


def _kinds(config: RunConfig, truth: Record | None) -> list[str] | None:
    """What each row of the pool is, as text: JSON knows no other keys."""
    if truth is None or config.pool is None:
        return None
    kinds = [str(value) for value in Rows.load(config.pool).dataset[truth["column"]]]
    if str(truth["clean"]) not in kinds:
        raise DataError(f"truth: no row of the pool has {truth['column']} {truth['clean']!r}; there are: {set(kinds)}")
    return kinds
