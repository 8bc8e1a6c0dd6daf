"""The anchors as candidates: what a scorer says of rows that are known to be clean.

``anchors.parquet`` beside the parts of a score table has one row per anchor: ``row``, ``loss``, ``utility`` (with
``mean_cosine``: against the *other* anchors, for one that vouches for itself says nothing; else null) and, where
candidates have them, ``sketch``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ost_hf.data.batching import cut_batches
from ost_hf.data.encoding import EncodedDataset
from ost_hf.errors import DataError
from ost_hf.files import write_whole
from ost_hf.parallel import barrier, is_main
from ost_hf.scorers.base import Score, Scorer
from ost_hf.scorers.config import ScorerConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.loop import limits, run_scorer, score_within_memory
from ost_hf.tables.score_table import ScoreTable

_SCHEMA = pa.schema(
    [("row", pa.int64()), ("loss", pa.float64()), ("utility", pa.float64()), ("sketch", pa.list_(pa.float32()))]
)


def score_rows_and_anchors(
    scorer: Scorer,
    pool: EncodedDataset,
    anchors: EncodedDataset | None,
    table: ScoreTable,
    rows: list[int],
    exclude: Mapping[int, tuple[str, str]],
    config: ScoringConfig,
    parts: ScoreTable | None = None,
) -> None:
    """Scores the anchors, where a scorer goes by them, and rows of the pool.

    Args:
        scorer: Gives the numbers. Its ``facts``, if it has such, go into the manifest.
        pool: The candidates, encoded.
        anchors: The anchors, encoded likewise.
        table: The score table of the run.
        rows: Rows of the pool.
        exclude: Those of them that are not scored: the status and the detail each gets.
        config: The scorer's, part size and workers.
        parts: Where the pool's scores go; by default into ``table``.
    """
    # Before the rows: where they are complete, this is too.
    if anchors is not None:
        write_anchor_scores(scorer, anchors, table, config)
    if is_main() and (facts := getattr(scorer, "facts", None)):
        table.add_to_manifest(scorer=facts)
    run_scorer(scorer, pool, parts or table, rows, exclude, config)


def write_anchor_scores(scorer: Scorer, anchors: EncodedDataset, table: ScoreTable, config: ScorerConfig) -> None:
    """Scores the anchors with the scorer of the candidates; only the main process does.

    Args:
        scorer: Of the kind ``one_step`` with estimator ``reverse``; nothing is written for others.
        anchors: The anchors, encoded.
        table: Its folder receives ``anchors.parquet``.
        config: The scorer's.

    Raises:
        DataError: If an anchor alone does not fit into memory.
    """
    if config.scorer == "one_step" and config.estimator == "reverse" and is_main():
        count = len(anchors)
        found = []
        for row, score in enumerate(score_anchors(scorer, anchors)):
            assert score.utility is not None  # else it was refused
            utility = None
            if config.utility == "mean_cosine" and count > 1:
                # The cosine with itself, which is one, taken out of the mean.
                utility = (count * score.utility - 1) / (count - 1)
            found.append({"row": row, "loss": score.loss, "utility": utility, "sketch": score.sketch})
        scores = pa.Table.from_pylist(found, schema=_SCHEMA)
        write_whole(anchor_file(table), lambda temporary: pq.write_table(scores, temporary))
    barrier()


def score_anchors(scorer: Scorer, anchors: EncodedDataset) -> list[Score]:
    """Every anchor as a candidate, on this process.

    Returns:
        Their scores, in the anchors' order.

    Raises:
        DataError: If an anchor alone does not fit into memory, or cannot be scored.
    """
    found: dict[int, Score] = {}
    max_rows, max_tokens = limits(scorer)
    for batch in cut_batches([anchors.encode(row) for row in range(len(anchors))], max_tokens, max_rows):
        for row, score in zip(batch, score_within_memory(scorer, batch), strict=True):
            if score is None:
                raise DataError(f"anchor {row.row} of {row.length} tokens does not fit into the device's memory")
            if score.utility is None:
                raise DataError(f"anchor {row.row} could not be scored: {score.status}, {score.detail}")
            found[row.row] = score
    return [found[row] for row in range(len(anchors))]


def read_anchor_scores(table: ScoreTable) -> pa.Table | None:
    """What :func:`write_anchor_scores` wrote; ``None`` if nothing."""
    path = anchor_file(table)
    return pq.read_table(path) if path.exists() else None


def anchor_file(table: ScoreTable) -> Path:
    """Where the anchors' scores lie beside a score table."""
    return table.folder / "anchors.parquet"
