"""Which rows are of the anchors' kind: :mod:`ost_hf.evidence.relevance` on the vectors of the first look.

The second look knows which rows look clean, and that pool is what anchors are told from: junk is unlike the anchors
too, and no other kind.
"""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ost_hf.evidence.conformal import looks_clean
from ost_hf.evidence.relevance import relevance
from ost_hf.parallel import is_main
from ost_hf.scoring.job import ScoringJob
from ost_hf.tables.anchor_table import read_anchor_scores
from ost_hf.tables.score_table import OTHER_KIND_P, ScoreTable
from ost_hf.tables.vectors import matrix

logger = logging.getLogger(__name__)


def with_kinds(added: pa.Table, first: ScoreTable, job: ScoringJob) -> pa.Table:
    """The second look's columns with ``other_kind_p``, on the process that writes them.

    Args:
        added: As the second look gives them.
        first: The first look's table.
        job: Whose anchors have vectors beside its table.
    """
    if not is_main():
        return added
    return with_other_kind_p(added, first.read(columns=["row", "embedding"]), read_anchor_scores(job.table))


def with_other_kind_p(added: pa.Table, first: pa.Table, anchors: pa.Table | None) -> pa.Table:
    """Columns with ``other_kind_p`` beside them, where rows and at least two anchors have vectors.

    Args:
        added: ``row`` and ``corrupted_p``.
        first: ``row`` and ``embedding``, of these rows and perhaps of others.
        anchors: The anchors' own scores.
    """
    of_anchors = matrix(anchors, "embedding", dtype=np.float64) if anchors is not None else None
    if of_anchors is None or len(of_anchors) < 2 or "embedding" not in first.column_names:
        return added
    if not np.isfinite(of_anchors).all():
        logger.warning("an anchor's last hidden states are not finite: rows of the anchors' kind cannot be told")
        return added
    first = first.take(pc.index_in(added["row"], first["row"]))
    places = np.flatnonzero(first["embedding"].is_valid().to_numpy())
    # As it is stored, if it is stored for long: a pool of a million rows has half a gigabyte of these.
    of_rows = matrix(first, "embedding", places, first.schema.field("embedding").type.value_type.to_pandas_dtype())
    if of_rows is None:
        return added
    finite = np.isfinite(of_rows).all(1)
    of_rows, places = of_rows[finite], places[finite]
    if len(of_rows) < 2:
        return added
    p = np.full(len(added), np.nan)
    p[places] = relevance(of_rows, of_anchors, looks_clean(_numbers(added["corrupted_p"])[places])).p
    return added.append_column(OTHER_KIND_P, pa.array(p, pa.float64(), from_pandas=True))


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return column.to_numpy().astype(np.float64)
