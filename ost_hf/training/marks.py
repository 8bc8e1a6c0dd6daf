"""Kept rows as a training takes them: with their weights, and without labels on the turns that are masked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import Dataset

from ost_hf.errors import DataError
from ost_hf.functional.turns import split_turns, without_turns
from ost_hf.selection.marks import Marks
from ost_hf.tables.selection_table import WEIGHT


class MarkedRows(Dataset[Any]):
    """A dataset whose kept rows are marked.

    Args:
        dataset: Any with a length, whose rows are mappings of model inputs.
        marks: By place in the dataset.
        weighted: Whether rows are to bring their weights.
    """

    def __init__(self, dataset: Any, marks: Mapping[int, Marks], weighted: bool):
        self.dataset, self.marks, self.weighted = dataset, marks, weighted

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return marked(self.dataset[index], self.marks[index], self.weighted)


def marked(row: Mapping[str, Any], marks: Marks, weighted: bool) -> dict[str, Any]:
    """A row of model inputs with what its marks say.

    Raises:
        DataError: If turns are masked, and the row has no labels or other turns.
    """
    result = dict(row)
    if weighted:
        result[WEIGHT] = marks.weight
    if marks.masked:
        if "labels" not in row:
            raise DataError(
                f"the selection masks turns, and a row of the training set has no labels (it has {', '.join(row)}): "
                "give rows that OSTTrainer encodes, or model inputs with labels"
            )
        result["labels"] = masked_labels(row["labels"], marks)
    return result


def masked_labels(labels: Any, marks: Marks) -> Any:
    """The labels of a row, a tensor or a list, with those of masked turns set to -100.

    Raises:
        DataError: If the row has not as many turns here as where they were numbered.
    """
    tensor = torch.as_tensor(labels)
    count = len(split_turns(tensor))
    if count <= max(marks.masked) or marks.turns not in (None, count):
        raise DataError(
            f"a row of the training set has {count} turns here, and {marks.turns or max(marks.masked) + 1} where turns "
            "were scored: masked turns cannot be found in it. Is it cut, or does the target's chat template join "
            "turns? Select without mask_turns, or leave the row out"
        )
    kept = without_turns(tensor, marks.masked)
    return kept if isinstance(labels, torch.Tensor) else kept.tolist()
