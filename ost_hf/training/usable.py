"""Rows that a target can be trained or evaluated on: those that can be encoded for it."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ost_hf.data.encoding.dataset import EncodedDataset
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


class UsableRows(Dataset[Any]):
    """An evaluation set without the rows that cannot be encoded, which would end a training at its first evaluation.

    They are looked for when the length, or a row, is first asked for. The processes share that work: it must be asked
    for on all of them, as ``Trainer`` does.

    Args:
        dataset: The set.
        name: What the log calls it.
        num_workers: Processes that read it.
    """

    def __init__(self, dataset: EncodedDataset, name: str, num_workers: int):
        self.dataset, self.name, self.num_workers = dataset, name, num_workers

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.rows[index]]

    @cached_property
    def rows(self) -> list[int]:
        """The places of the rows that can be used.

        Raises:
            DataError: If there are none.
        """
        hash_once(self.dataset)
        total = len(self.dataset)
        unusable = _unusable(self.dataset, list(range(total)), self.num_workers)
        if unusable:
            first = unusable[0]
            reason = f"such as row {first['row']} ({first['status']}: {first['detail']})"
            if len(unusable) == total:
                raise DataError(f"no row of {self.name} can be used, {reason}")
            logger.warning(
                "%d of %d rows of %s cannot be used and are left out, %s", len(unusable), total, self.name, reason
            )
        left_out = {status["row"] for status in unusable}
        return [row for row in range(total) if row not in left_out]


def hash_once(dataset: Any) -> None:
    """Hashes rows here once, where hashes are needed at all: a loader's workers would each do it again."""
    # Ids are hashes where there is no column of them, and the cache of encoded rows knows rows by hashes.
    if isinstance(dataset, EncodedDataset) and (
        dataset.rows.config.id_column is None or dataset.encoder.config.cache_mib
    ):
        dataset.rows.hash_together()


def _unusable(dataset: EncodedDataset, rows: list[int], num_workers: int) -> list[dict[str, Any]]:
    """Those of some rows that cannot be encoded, by row; the processes share the work, and all get the answer."""
    # A loader draws a seed for its workers: of a generator of its own, for a training's draws are to stay as they are.
    own = torch.Generator()
    loader = DataLoader(_Statuses(dataset, share(rows)), batch_size=None, num_workers=num_workers, generator=own)
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
