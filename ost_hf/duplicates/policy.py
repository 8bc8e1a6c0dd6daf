"""Which rows of a pool are not scored because they repeat something, and what was found on the way."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ost_hf.data.anchors import refuse_overlap
from ost_hf.data.encoding.encoded import Encoded
from ost_hf.data.rows import Rows
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.duplicates.find import (
    EXACT,
    NEAR,
    Copy,
    Evaluation,
    evaluation_sets,
    find_duplicates,
)
from ost_hf.errors import DataError
from ost_hf.files import write_json
from ost_hf.parallel import gather_objects, is_main, share
from ost_hf.settings import as_mapping
from ost_hf.tables.statuses import ANCHOR_OVERLAP, DUPLICATE, EVALUATION_OVERLAP, TRUNCATED

logger = logging.getLogger(__name__)

Record = dict[str, Any]
# Row of the pool: the status and the detail it gets in the score table.
Excluded = dict[int, tuple[str, str]]
Encode = Callable[[int], Encoded]


def exclude_rows(
    pool: Rows,
    anchors: Rows | None,
    overlap: str,
    config: DuplicatesConfig,
    evaluation: Evaluation = None,
    encode: Encode | None = None,
) -> tuple[Excluded, Record]:
    """Finds the rows that repeat something and does what the configuration says about them.

    Called on every process of a run; each finds the same. The main process logs a line for each set.

    Args:
        pool: The candidates.
        anchors: The anchor set, if there is one.
        overlap: What is done about exact copies of anchors: ``error`` or ``drop``.
        config: What is done about everything else.
        evaluation: The rows that the target will be evaluated on, if they are known; in one set or several.
        encode: Encodes a row of the pool: of near copies one that can be scored is kept. It is asked only where copies
            are dropped, and only about rows that have near copies.

    Returns:
        The rows not to score, and a report in plain types.

    Raises:
        DataError: If there are duplicates where the configuration allows none.
    """
    config = replace(config, anchors=config.anchors or overlap)
    if anchors is not None and overlap == "error":
        refuse_overlap(pool, anchors)
    found = find_duplicates(pool, config, anchors, evaluation)
    excluded: Excluded = {}
    report: Record = {"settings": as_mapping(config), "rows": len(pool), "near_pairs": found.near_pairs}
    if anchors is not None:
        excluded = _settle_anchors(found.anchors, config, pool)
        report["anchors"] = _listed("of anchors", found.anchors, excluded, pool)
    if evaluation_sets(evaluation) and config.evaluation != "off":
        excluded = _settle_evaluation(found.evaluation, config, pool) | excluded
        report["evaluation"] = _listed("of the evaluation set", found.evaluation, excluded, pool)
        if anchors is not None:
            _settle_tested_anchors(found.anchors_in_evaluation, config, anchors)
            report["anchors_in_evaluation"] = _described(found.anchors_in_evaluation, anchors)
    if config.within_pool != "off":
        groups = _by_id(found.groups, pool, excluded)
        kept = _kept_of(groups, pool, encode if config.within_pool == "drop" else None)
        copies = _copies_within(groups, kept, pool)
        excluded |= _settle_copies(copies, config, pool)
        report["pool"] = _listed("of another row of the pool", copies, excluded, pool)
        report["pool"]["groups"] = len({copy.of for copy in copies.values()})
    return excluded, report


def write_report(report: Record, path: Path) -> None:
    """Writes ``duplicates.json``, whole or not at all."""
    write_json(path, report)


def _settle_anchors(copies: Mapping[int, Copy], config: DuplicatesConfig, pool: Rows) -> Excluded:
    """Exact copies are in ``copies`` only where ``anchors.overlap`` drops them."""
    near = {row: copy for row, copy in copies.items() if copy.kind == NEAR}
    if near and config.anchors == "error":
        raise DataError(
            f"{_some(near, pool)} an anchor; an anchor would vouch for itself. Hold the anchors out, or set "
            "duplicates.anchors to drop or report"
        )
    excluded: Excluded = {
        row: (ANCHOR_OVERLAP, "the row is also an anchor") for row, copy in copies.items() if copy.kind == EXACT
    }
    if config.anchors == "drop":
        excluded |= {row: (ANCHOR_OVERLAP, f"near duplicate of anchor {copy.of}") for row, copy in near.items()}
    return excluded


def _settle_evaluation(copies: Mapping[int, Copy], config: DuplicatesConfig, pool: Rows) -> Excluded:
    if copies and config.evaluation == "error":
        raise DataError(
            f"{_some(copies, pool)} a row of the evaluation set; a score on rows that were trained on says nothing. "
            "Hold the evaluation set out, or set duplicates.evaluation to drop, report or off"
        )
    if config.evaluation != "drop":
        return {}
    return {row: (EVALUATION_OVERLAP, f"{copy.kind} duplicate of test row {copy.of}") for row, copy in copies.items()}


def _settle_tested_anchors(copies: Mapping[int, Copy], config: DuplicatesConfig, anchors: Rows) -> None:
    """An anchor is never dropped: which anchors there are is the user's word."""
    if copies and config.evaluation == "error":
        raise DataError(
            f"{_some(copies, anchors, 'anchors')} a row of the evaluation set; rows would be selected for the test. "
            "Take other anchors, or set duplicates.evaluation to drop or report (the anchors stay) or off"
        )
    if copies and is_main():
        logger.warning("%s a row of the evaluation set, and stay", _some(copies, anchors, "anchors"))


def _by_id(groups: list[list[int]], pool: Rows, excluded: Excluded) -> list[list[int]]:
    """Groups in the order of ids, without rows that are not scored anyway: these neither keep nor count."""
    left = [[row for row in group if row not in excluded] for group in groups]
    return [sorted(group, key=lambda row: pool.example_ids[row]) for group in left if len(group) > 1]


def _kept_of(groups: list[list[int]], pool: Rows, encode: Encode | None) -> list[int]:
    """Of each group the row that is kept: the first by id that can be scored whole, else cut off, else the first."""
    if encode is None:
        return [group[0] for group in groups]
    # The processes share the groups. Which row is kept depends on the group alone.
    mine = [(number, _first_usable(groups[number], pool, encode)) for number in share(list(range(len(groups))))]
    return [row for _, row in sorted(gather_objects(mine))]


def _first_usable(group: list[int], pool: Rows, encode: Encode) -> int:
    # Exact copies can all be scored, or none of them.
    contents: dict[str, int] = {}
    for row in group:
        contents.setdefault(pool.content_hashes[row], row)
    cut_off = None
    for row in contents.values() if len(contents) > 1 else ():
        encoded = encode(row)
        if encoded.features is not None and encoded.status != TRUNCATED:
            return row
        if encoded.features is not None and cut_off is None:
            cut_off = row
    return group[0] if cut_off is None else cut_off


def _copies_within(groups: list[list[int]], kept: list[int], pool: Rows) -> dict[int, Copy]:
    """Every row of a group but the one that is kept."""
    copies = {}
    for group, chosen in zip(groups, kept, strict=True):
        for row in group:
            if row != chosen:
                same = pool.content_hashes[row] == pool.content_hashes[chosen]
                copies[row] = Copy(EXACT if same else NEAR, pool.example_ids[chosen])
    return dict(sorted(copies.items()))


def _settle_copies(copies: Mapping[int, Copy], config: DuplicatesConfig, pool: Rows) -> Excluded:
    if copies and config.within_pool == "error":
        raise DataError(
            f"{_some(copies, pool)} another row of it. Remove them, or set duplicates.within_pool to drop, report "
            "or off"
        )
    if config.within_pool != "drop":
        return {}
    return {row: (DUPLICATE, f"{copy.kind} duplicate of {copy.of}") for row, copy in copies.items()}


def _some(copies: Mapping[int, Copy], rows: Rows, name: str = "rows of the pool") -> str:
    """The start of a sentence: how many, and an example."""
    first = min(copies)
    near = sum(copy.kind == NEAR for copy in copies.values())
    return (
        f"{len(copies)} {name} ({len(copies) - near} exactly, {near} nearly; row {first}, {rows.example_ids[first]}, "
        f"is like {copies[first].of}) repeat"
    )


def _listed(what: str, copies: Mapping[int, Copy], excluded: Excluded, rows: Rows) -> Record:
    """The report of one set of the pool's rows, which is logged in a line too."""
    report = _described(copies, rows)
    report["not_scored"] = sum(row in excluded for row in copies)
    if is_main():
        logger.info(
            "duplicates %s: %d exact, %d near; %d of these rows are not scored",
            what,
            report[EXACT],
            report[NEAR],
            report["not_scored"],
        )
    return report


def _described(copies: Mapping[int, Copy], rows: Rows) -> Record:
    counts = Counter(copy.kind for copy in copies.values())
    copied = {rows.example_ids[row]: {"row": row, "kind": copy.kind, "of": copy.of} for row, copy in copies.items()}
    return {EXACT: counts[EXACT], NEAR: counts[NEAR], "copies": copied}
