"""The anchors as candidates: what a scorer says of rows that are known to be clean."""

from __future__ import annotations

from ost_hf.data.batching import cut_batches
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.errors import DataError
from ost_hf.parallel import barrier, is_main
from ost_hf.scorers.protocol import Scorer
from ost_hf.scoring.job import ScoringJob
from ost_hf.scoring.loop import SoundRow, limits, run_scorer, score_within_memory
from ost_hf.scoring.tally import apart
from ost_hf.tables.anchor_table import anchor_file, write_anchor_scores
from ost_hf.tables.columns import Columns, joined, take
from ost_hf.tables.score_table import ScoreTable
from ost_hf.tables.statuses import OK, OUT_OF_MEMORY


def score_rows_and_anchors(scorer: Scorer, job: ScoringJob, rows: list[int], table: ScoreTable | None = None) -> None:
    """Scores the anchors, where a scorer goes by them and they have no scores, and rows of the pool.

    Args:
        scorer: Gives the numbers. Its ``facts``, if it has such, go into the manifest of the job's table, and what it
            says of the anchors lies beside that table.
        job: What is scored.
        rows: Rows of the pool.
        table: Where the pool's scores go; by default the job's own.

    Raises:
        DataError: If an anchor alone does not fit into memory.
    """
    # Before the rows: where they are complete, this is too.
    keep_anchor_scores(scorer, job)
    if is_main() and (facts := getattr(scorer, "facts", None)):
        job.table.add_to_manifest(scorer=facts)
    run_scorer(scorer, job, rows, table)


def keep_anchor_scores(scorer: Scorer, job: ScoringJob) -> None:
    """Scores the anchors, where a scorer goes by them, and writes that beside the job's table, unless it is there."""
    if job.anchors is None or not hasattr(scorer, "of_anchors"):
        return
    if is_main() and not anchor_file(job.table).exists():
        kept = scorer.of_anchors(score_anchors(scorer, job.anchors))
        if kept is not None:
            write_anchor_scores(job.table, kept)
    barrier()


def score_anchors(scorer: Scorer, anchors: EncodedDataset) -> Columns:
    """Every anchor as a candidate, on this process.

    Returns:
        Their columns, in the anchors' order.

    Raises:
        DataError: If an anchor alone does not fit into memory, or cannot be scored.
    """
    order: list[int] = []
    found: list[Columns] = []
    max_rows, max_tokens = limits(scorer)
    rows = [anchors.encode(row) for row in range(len(anchors))]
    sound = SoundRow(rows)
    for batch in cut_batches(rows, max_tokens, max_rows):
        with apart("anchors"):
            columns = score_within_memory(scorer, batch, sound)
        for row, status, detail in zip(batch, columns["status"], columns["detail"], strict=True):
            if status == OUT_OF_MEMORY:
                raise DataError(f"anchor {row.row} of {row.length} tokens does not fit into the device's memory")
            if status != OK:
                raise DataError(f"anchor {row.row} could not be scored: {status}, {detail}")
        order += [row.row for row in batch]
        found.append(columns)
    places = sorted(range(len(order)), key=order.__getitem__)
    return take(joined(found), places)
