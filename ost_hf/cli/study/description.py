"""What an arm kept, how well its scores tell clean rows from others, and what its target can do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ost_hf.cli.config import RunConfig
from ost_hf.data.rows import Rows
from ost_hf.errors import DataError
from ost_hf.scoring.score_table import ScoreTable
from ost_hf.selection.selector import read_selection

Record = dict[str, Any]

# Beside the utility: columns of a second look that rank rows too, and whether more is better.
_RANKING_COLUMNS = {"loss": -1, "late_loss": -1}


def describe_arm(config: RunConfig, truth: Record | None, count_by: Sequence[str] = ()) -> Record:
    """Exact match, kept rows, and the log's words on how they were chosen.

    Args:
        config: The arm's.
        truth: ``column`` and its value for ``clean`` rows.
        count_by: Columns of the pool of whose values the kept share is told.
    """
    metrics = json.loads((config.folder / "metrics.json").read_text())
    table = read_selection(config.folder)
    kept = [row for row, is_kept in zip(table["row"].to_pylist(), table["kept"].to_pylist(), strict=True) if is_kept]
    metadata = table.schema.metadata or {}
    result: Record = {
        "score": metrics["exact_match"],
        "by_group": metrics.get("by_group", {}),
        "rows_kept": len(kept),
        "rows_pool": len(table),
        "steps": config.training.get("max_steps"),
        "explanation": metadata.get(b"explanation", b"").decode(),
    }
    for column in count_by:
        assert config.pool is not None
        values = list(map(str, Rows.load(config.pool).dataset[column]))
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


def describe_scores(config: RunConfig, truth: Record | None) -> Record:
    """The AUC of clean against other rows, by utility and by what else a score table ranks with."""
    kinds = _kinds(config, truth)
    if truth is None or kinds is None:
        return {}
    table = ScoreTable(config.folder / "scores").read()
    clean = np.asarray([kinds[row] == str(truth["clean"]) for row in table["row"].to_pylist()])
    result = {}
    for column, sign in {"utility": 1, **_RANKING_COLUMNS}.items():
        if column in table.column_names:
            values = sign * table[column].to_numpy().astype(np.float64)
            result[column] = area_under_curve(values, clean)
    return {"auc": result}


def area_under_curve(values: np.ndarray, positive: np.ndarray) -> float | None:
    """The chance that a positive row's value is above another's, ties counted half; ``None`` without both kinds.

    Args:
        values: ``[N]``; rows without a number are left out.
        positive: ``[N]``, booleans.
    """
    known = ~np.isnan(values)
    above, below = np.sort(values[known & positive]), values[known & ~positive]
    if not len(above) or not len(below):
        return None
    losses = np.searchsorted(above, below, "left") + np.searchsorted(above, below, "right")
    return float(1 - losses.mean() / (2 * len(above)))


def _kinds(config: RunConfig, truth: Record | None) -> list[str] | None:
    """What each row of the pool is, as text: JSON knows no other keys."""
    if truth is None or config.pool is None:
        return None
    kinds = [str(value) for value in Rows.load(config.pool).dataset[truth["column"]]]
    if str(truth["clean"]) not in kinds:
        raise DataError(f"truth: no row of the pool has {truth['column']} {truth['clean']!r}; there are: {set(kinds)}")
    return kinds
