"""Rows that a target can be trained or evaluated on: those that can be encoded for it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset, Subset

from ost_hf.data.encoding import EncodedDataset
from ost_hf.data.sources import ID_COLUMN
from ost_hf.errors import DataError
from ost_hf.files import write_json
from ost_hf.parallel import gather_objects, is_main, share
from ost_hf.selection.kept import Kept

logger = logging.getLogger(__name__)


def drop_unusable(dataset: EncodedDataset, kept: Kept, report: Path, num_workers: int) -> Kept:
    """Leaves out kept rows that cannot be encoded for the target, and names them in ``report``.

    The processes share the rows. The proxy's tokenizer may have had room for a row that the target's
    has not.
    """
    unusable = _unusable(dataset, kept.indices, num_workers)
    if unusable:
        logger.warning(
            "%d of %d kept rows cannot be used by the target, such as row %d (%s: %s); %s names them all",
            len(unusable), len(kept.indices), unusable[0]["row"], unusable[0]["status"], unusable[0]["detail"], report,
        )  # fmt: skip
    if is_main() and (unusable or report.exists()):
        write_json(report, unusable)
    return kept.without({status["row"] for status in unusable}) if unusable else kept


def usable_part(dataset: EncodedDataset, name: str, num_workers: int) -> Dataset[Any]:
    """An evaluation set without the rows that cannot be encoded, which would end a training at its first evaluation.

    Args:
        dataset: The set.
        name: What the log calls it.
        num_workers: Processes that read it.

    Raises:
        DataError: If no row can be used.
    """
    unusable = _unusable(dataset, list(range(len(dataset))), num_workers)
    if not unusable:
        return dataset
    first = unusable[0]
    reason = f"such as row {first['row']} ({first['status']}: {first['detail']})"
    if len(unusable) == len(dataset):
        raise DataError(f"no row of {name} can be used, {reason}")
    logger.warning("%d of %d rows of %s cannot be used and are left out, %s", len(unusable), len(dataset), name, reason)
    rows = {status["row"] for status in unusable}
    return Subset(dataset, [row for row in range(len(dataset)) if row not in rows])


def _unusable(dataset: EncodedDataset, rows: list[int], num_workers: int) -> list[dict[str, Any]]:
    """Those of some rows that cannot be encoded, by row; the processes share the work, and all get the answer."""
    loader = DataLoader(_Statuses(dataset, share(rows)), batch_size=None, num_workers=num_workers)
    return sorted(gather_objects([status for status in loader if status is not None]), key=lambda s: s["row"])


class _Statuses(Dataset[Any]):
    def __init__(self, dataset: EncodedDataset, rows: list[int]):
        self.dataset, self.rows = dataset, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        encoded = self.dataset.encode(self.rows[index])
        if encoded.features is not None:
            return None
        return {
            "row": encoded.row,
            ID_COLUMN: encoded.example_id,
            "status": encoded.status,
            "detail": encoded.detail,
        }
