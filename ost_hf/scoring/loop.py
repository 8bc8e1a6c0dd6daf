"""The loop: encodes rows, scores them, writes part after part; any number of processes, any memory."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ost_hf.data.batching import cut_batches
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import Encoded
from ost_hf.errors import ConfigError, ModelError, OSTError, RunDirectoryError, reason_of
from ost_hf.parallel import barrier, free_memory, is_main, share, state
from ost_hf.scorers.protocol import NO_LIMIT, Scorer, columns_of
from ost_hf.scoring.job import ScoringJob
from ost_hf.scoring.tally import apart, count_rows, save
from ost_hf.tables.columns import Columns, TableRows, checked, joined, put
from ost_hf.tables.score_table import ScoreTable
from ost_hf.tables.statuses import BAD_ROW, NON_FINITE, OUT_OF_MEMORY

logger = logging.getLogger(__name__)

# Batches among whose rows those of like length are put together.
_WINDOW_BATCHES = 8
# Rows encoded ahead at most: images of many short rows could fill the memory.
_WINDOW_ROWS = 1024
# Rows looked at for the longest before a run begins.
_PROBED_ROWS = 64
# Rows tried at most to find one that the scorer can score.
_SOUND_TRIALS = 8


def run_scorer(scorer: Scorer, job: ScoringJob, rows: list[int], table: ScoreTable | None = None) -> None:
    """Encodes rows, scores them, writes part after part.

    The rows are cut into parts in the same way on every process; each takes every n-th part.

    Args:
        scorer: Gives the numbers.
        job: The pool, the rows that are not scored, and the loop's settings.
        rows: What is missing in the table.
        table: Where parts go; by default the job's own.
    """
    table = job.table if table is None else table
    # Every process must have seen what was missing before anyone adds to it.
    barrier()
    # Smaller parts where the default would leave a process without work.
    size = max(1, min(job.config.part_size, math.ceil(len(rows) / state().num_processes)))
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    mine = share(parts)
    stream = _encode([row for part in mine for row in part], job, job.config.workers(state().device.type))
    fit_memory(scorer, (job.pool.encode(row) for row in _spread(rows, _PROBED_ROWS) if row not in job.exclude))
    # Of the whole pool: what is missing may be what a scorer fails with.
    others = _spread([row for row in range(len(job.pool)) if row not in job.exclude], _PROBED_ROWS)
    sound = SoundRow(job.pool.encode(row) for row in others)
    progress = tqdm(total=len(rows), desc="scoring", unit="row", smoothing=0.1, disable=not is_main())
    rows_of = {table.part_name(part): len(part) for part in parts} if is_main() else {}
    for part in mine:
        table.write_part(_score_part(scorer, islice(stream, len(part)), sound))
        save()
        if rows_of:
            # Counting finished files speaks of all processes, without a message between them.
            progress.update(sum(rows_of.get(name, 0) for name in os.listdir(table.folder)) - progress.n)
    barrier()
    progress.update(len(rows) - progress.n)
    progress.close()


def _spread(rows: list[int], count: int) -> list[int]:
    """At most ``count`` of the rows, at equal distances."""
    return rows[:: max(1, math.ceil(len(rows) / count))]


class _Statused(Dataset[Encoded]):
    """Encodes rows in loader workers; excluded ones are not even read."""

    def __init__(self, rows: list[int], pool: EncodedDataset, exclude: Mapping[int, tuple[str, str]]):
        self.rows, self.pool, self.exclude = rows, pool, exclude

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Encoded:
        row = self.rows[index]
        if row in self.exclude:
            return Encoded(self.pool.rows.example_ids[row], row, *self.exclude[row])
        return self.pool.encode(row)


def _encode(rows: list[int], job: ScoringJob, num_workers: int) -> Iterator[Encoded]:
    dataset = _Statused(rows, job.pool, job.exclude)
    for row in DataLoader(dataset, batch_size=None, num_workers=num_workers):
        if num_workers and row.features is not None:
            # A tensor from a worker holds an open file as long as it lives; a copy holds none.
            row = replace(row, features={name: tensor.clone() for name, tensor in row.features.items()})
        yield row


def _score_part(scorer: Scorer, part: Iterator[Encoded], sound: SoundRow) -> pa.Table:
    """The part's rows. A few batches' are encoded at a time: images of a whole part could fill the memory."""
    rows = TableRows()
    while window := _take_window(scorer, part):
        _score_window(scorer, window, rows, sound)
    return rows.table()


def _take_window(scorer: Scorer, stream: Iterator[Encoded]) -> list[Encoded]:
    """The next rows of the stream: about ``_WINDOW_BATCHES`` batches of them."""
    max_rows, max_tokens = limits(scorer)
    window: list[Encoded] = []
    tokens = 0
    with apart("encoding"):
        for row in stream:
            window.append(row)
            tokens += row.length
            if tokens >= _WINDOW_BATCHES * max_tokens or len(window) >= min(_WINDOW_ROWS, _WINDOW_BATCHES * max_rows):
                break
    return window


def limits(scorer: Scorer) -> tuple[int, int]:
    """Rows and padded tokens that a scorer takes at once."""
    return (
        getattr(scorer, "batch_size", None) or _WINDOW_ROWS,
        # A user's scorer need not think of tokens.
        getattr(scorer, "batch_tokens", NO_LIMIT),
    )


def _score_window(scorer: Scorer, window: Iterable[Encoded], rows: TableRows, sound: SoundRow) -> None:
    """Adds the window's rows. Those of like length share a batch, which saves padding."""
    places = {row.row: rows.begin(row.example_id, row.row, row.tokens, row.status, row.detail) for row in window}
    max_rows, max_tokens = limits(scorer)
    for batch in cut_batches((row for row in window if row.features is not None), max_tokens, max_rows):
        rows.fill([places[row.row] for row in batch], _score_batch(scorer, batch, sound))


def _score_batch(scorer: Scorer, batch: list[Encoded], sound: SoundRow) -> Columns:
    """Scores a batch; a row that is not finite in it again by itself.

    One row's NaN can reach another: seen on an H200, in bfloat16, with an image of NaN; by which kernel is not known.
    """
    columns = score_within_memory(scorer, batch, sound)
    if len(batch) > 1:
        for place in np.flatnonzero(columns["status"] == NON_FINITE):
            columns = put(columns, int(place), score_within_memory(scorer, [batch[place]], sound))
    return columns


class SoundRow:
    """A row that the scorer can score: if the scorer fails with another row and not with this, the other is to blame.

    Args:
        rows: Where such a row is looked for, if none was scored before one is needed.
    """

    def __init__(self, rows: Iterable[Encoded] = ()):
        self._rows = rows
        self._found: Encoded | None = None

    def note(self, row: Encoded) -> None:
        """Remembers a row that was scored."""
        self._found = row

    def is_scored_by(self, scorer: Scorer) -> bool:
        """Whether the scorer scores such a row now."""
        rows = (row for row in self._rows if row.features is not None)
        for row in [self._found] if self._found is not None else islice(rows, _SOUND_TRIALS):
            try:
                checked(columns_of(scorer, [row]))
                count_rows(scorer, 1)
            except Exception:
                continue
            self._found = row
            return True
        return False


def score_within_memory(scorer: Scorer, batch: list[Encoded], sound: SoundRow | None = None) -> Columns:
    """Scores a batch, in pieces if the device's memory is too small for all of it, or the scorer fails with a row.

    Scores do not depend on the batch, so pieces give the same numbers. After a lack of memory the scorer's
    ``batch_tokens`` shrinks with them: the next batches fit at once.

    Returns:
        The batch's columns, ``status`` and ``detail`` among them; a row that does not fit alone has the status
        ``out_of_memory``, one with which the scorer fails ``bad_row``.

    Raises:
        Exception: What the scorer raises if a row is not to blame: it fails with a sound row too, or knows none.
    """
    sound = SoundRow() if sound is None else sound
    found: list[Columns] = []
    done, size = 0, len(batch)
    while done < len(batch):
        piece = batch[done : done + size]
        try:
            columns = checked(columns_of(scorer, piece))
            count_rows(scorer, len(piece))
            sound.note(piece[0])
        except torch.OutOfMemoryError:
            free_memory()
            if len(piece) > 1:
                size = len(piece) // 2
                _shrink(scorer, piece[:size])
                continue
            columns = _without_score(OUT_OF_MEMORY, "the row alone does not fit into the device's memory")
        except (ConfigError, ModelError, RunDirectoryError):
            raise
        except Exception as error:
            columns = _columns_of_failed(scorer, piece, sound, error)
        found.append(columns)
        done += len(piece)
    return joined(found)


def _columns_of_failed(scorer: Scorer, piece: list[Encoded], sound: SoundRow, error: Exception) -> Columns:
    """Scores the halves of a piece with which the scorer failed; a single row gets a status if it is to blame."""
    if len(piece) > 1:
        half = len(piece) // 2
        return joined([score_within_memory(scorer, rows, sound) for rows in (piece[:half], piece[half:])])
    if not sound.is_scored_by(scorer):
        # Not the row: a lost device, a server that went away, a scorer with a fault of its own.
        raise error
    return _without_score(BAD_ROW, f"the scorer fails with this row: {reason_of(error)}")


def _without_score(status: str, detail: str) -> Columns:
    """The columns of one row that has no number."""
    return {
        "utility": np.array([np.nan]),
        "status": np.array([status], dtype=object),
        "detail": np.array([detail], dtype=object),
    }


def fit_memory(scorer: Scorer, rows: Iterable[Encoded]) -> None:
    """Tries the worst batch before a run begins: the longest of ``rows``, as often as a batch may hold it."""
    longest = max((row for row in rows if row.features is not None), key=lambda row: row.length, default=None)
    max_rows, max_tokens = limits(scorer)
    if longest is None or max_tokens == NO_LIMIT:
        return
    size = max(1, min(max_rows, max_tokens // longest.length))
    while size:
        try:
            with apart("trial_batches"):
                scorer.score([longest] * size)
                count_rows(scorer, size)
            return
        except torch.OutOfMemoryError:
            free_memory()
            size //= 2
            _shrink(scorer, [longest] * size)
        except OSTError:
            raise
        except Exception:  # with this row, or with all of them: the loop finds out
            return


def _shrink(scorer: Scorer, batch: list[Encoded]) -> None:
    if not batch:
        return
    scorer.batch_tokens = min(limits(scorer)[1], len(batch) * max(row.length for row in batch))
    logger.warning("out of memory; going on with %d tokens at once", scorer.batch_tokens)
