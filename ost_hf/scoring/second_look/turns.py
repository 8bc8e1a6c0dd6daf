"""What the last round of the second look says of each turn of a row: late losses and p-values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ost_hf.data.encoding.encoded import Encoded, Features
from ost_hf.evidence.conformal import conformal_p
from ost_hf.files import write_json
from ost_hf.scorers.inputs import BatchLimits, ToDevice, forward_batch_tokens
from ost_hf.tables.columns import Columns
from ost_hf.tables.score_table import ScoreTable

LATE_LOSSES = "turn_late_losses"
# What the stage adds where `scoring.per_turn` is set.
COLUMNS = (LATE_LOSSES, "turn_corrupted_p", "turn_p_value_anchors")


class TurnLossScorer:
    """As ``LossScorer``, by the loss of rows, with the losses of their turns beside it.

    Args:
        losses: Those of every sample of a batch, ``[B]``, and of its turns, ``[B, K]``.
        processing_class: The models' tokenizer or processor.
        config: Batch limits.
        passes: Forward passes that a row's losses take: one of each model.
    """

    batch_size: int | None

    def __init__(
        self,
        losses: Callable[[Features], tuple[Tensor, Tensor]],
        processing_class: Any,
        config: BatchLimits,
        passes: int = 1,
    ) -> None:
        self.passes = passes
        self.batch_size, self.batch_tokens = config.batch_size, forward_batch_tokens(config)
        self._losses, self._inputs = losses, ToDevice(processing_class)

    def score(self, batch: list[Encoded]) -> Mapping[str, Tensor]:
        """Losses of a batch of candidates, or of anchors."""
        with torch.inference_mode():
            loss_B, turn_BK = self._losses(self._inputs(batch))
        return {"utility": -loss_B.double(), "loss": loss_B.double(), LATE_LOSSES: turn_BK.double()}


def write_turns(columns: Columns, anchors: Path) -> None:
    """Writes the late losses of the anchors' turns beside the anchors' own, where there are such."""
    if LATE_LOSSES in columns:
        losses = np.asarray(columns[LATE_LOSSES], dtype=np.float64)
        write_json(_turns_of(anchors), losses[~np.isnan(losses)].tolist())


def copy_turns(source: Path, anchors: Path) -> None:
    """The late losses of the anchors' turns, from beside other copies of the anchors' own."""
    write_json(_turns_of(anchors), json.loads(_turns_of(source).read_text()))


def with_turns(added: pa.Table, seen: ScoreTable, judge_of: np.ndarray, anchors: list[Path]) -> pa.Table:
    """The stage's columns with those of turns.

    Args:
        added: What the stage adds, by row.
        seen: The last round's table, of the same rows.
        judge_of: ``[rows]``, which judge was asked about each.
        anchors: For each judge, where the anchors' losses lie.
    """
    lists = seen.read(complete=False, columns=["row", LATE_LOSSES])[LATE_LOSSES].to_pylist()
    clean = [json.loads(_turns_of(path).read_text()) for path in anchors]
    p_values = [
        None if losses is None else conformal_p(losses, clean[judge]).astype(np.float32)
        for losses, judge in zip(lists, judge_of.tolist(), strict=True)
    ]
    columns = (
        pa.array(lists, pa.list_(pa.float32())),
        pa.array(p_values, pa.list_(pa.float32())),
        pa.array([len(clean[0])] * len(lists), pa.int32()),
    )
    for name, values in zip(COLUMNS, columns, strict=True):
        added = added.append_column(name, values)
    return added


def _turns_of(anchors: Path) -> Path:
    return anchors.with_name(anchors.name.replace("anchors", "turns-of-anchors"))
