"""Tables that lead to the score table, in folders beside its parts, and how they become one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyarrow as pa
import pyarrow.compute as pc

from ost_hf.parallel import barrier, free_memory, is_main
from ost_hf.scorers.protocol import Scorer
from ost_hf.scoring.anchor_scores import score_rows_and_anchors
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringJob
from ost_hf.scoring.tally import apart
from ost_hf.tables.columns import SCHEMA
from ost_hf.tables.score_table import ScoreTable

# Makes the scorer of a configuration with what it needs.
Build = Callable[[ScoringConfig], Scorer]


def scored_by(job: ScoringJob, build: Build, config: ScoringConfig, name: str, rows: Iterable[int]) -> ScoreTable:
    """The table of some rows in a folder beside the parts; those that an earlier run has stored are not scored again.

    Args:
        job: What is scored.
        build: Makes the scorer.
        config: Of which configuration.
        name: The folder.
        rows: The rows.
    """
    wanted = sorted(rows)
    part = ScoreTable(job.table.folder / name)
    missing = sorted(set(wanted) - part.rows_done())
    if is_main():
        part.write_manifest({"part": name}, rows=len(wanted))
    barrier()
    if missing:
        with apart(name):
            scorer = build(config)
            score_rows_and_anchors(scorer, job, missing, part)
        del scorer
        free_memory()
    return part


def write_merged(first: pa.Table, added: pa.Table, job: ScoringJob) -> None:
    """Writes what is missing in the score table, a part at a time.

    Args:
        first: The scorer's table, of all rows.
        added: As a second stage gives it (:class:`ost_hf.scoring.second_stages.SecondStage`).
        job: Whose table it is.
    """
    # A row that only the scorer saw gets empty columns.
    added = added.take(pc.index_in(first["row"], added["row"]))
    merged = first.replace_schema_metadata(None)
    for name in added.column_names:
        if name not in merged.column_names:
            merged = merged.append_column(name, added[name])
        elif name != "row":
            column = pc.coalesce(added[name], merged[name])
            merged = merged.set_column(merged.column_names.index(name), name, column)
    merged = merged.select([*SCHEMA.names, *sorted(set(merged.column_names) - set(SCHEMA.names))])
    done = pa.array(sorted(job.table.rows_done()), pa.int64())
    for start in range(0, len(merged), job.config.part_size):
        rows = merged.slice(start, job.config.part_size)
        missing = rows.filter(pc.invert(pc.is_in(rows["row"], done)))
        if len(missing):
            job.table.write_part(missing)
