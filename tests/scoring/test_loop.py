"""The loop within the device's memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ost_hf.data.batching import cut_batches
from ost_hf.data.encoded import Encoded
from ost_hf.data.encoded_dataset import EncodedDataset
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scorers.protocol import Score
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringJob
from ost_hf.scoring.loop import run_scorer, score_within_memory
from ost_hf.tables.score_table import ScoreTable


def encoded(row: int, length: int) -> Encoded:
    return Encoded(str(row), row, features={"input_ids": torch.zeros(length, dtype=torch.long)})


def job_of(pool: EncodedDataset, folder: Path) -> ScoringJob:
    """The pool, and a table that waits for its rows."""
    table = ScoreTable(folder)
    table.write_manifest({}, rows=len(pool))
    return ScoringJob(pool, None, ProxyConfig("none"), table, {}, ScoringConfig(), folder)


class SmallDevice:
    """Scores by length; raises what CUDA raises when a batch holds more than ``memory`` tokens."""

    batch_size = None

    def __init__(self, memory: int, batch_tokens: int = 10_000):
        self.memory, self.batch_tokens = memory, batch_tokens
        self.tried: list[int] = []

    def score(self, batch: list[Encoded]) -> list[Score]:
        tokens = len(batch) * max(row.length for row in batch)
        self.tried.append(tokens)
        if tokens > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [Score(float(row.length)) for row in batch]


def test_batch_that_does_not_fit_is_scored_in_halves() -> None:
    scorer = SmallDevice(memory=35)
    columns = score_within_memory(scorer, [encoded(i, 10) for i in range(8)])
    assert columns["utility"].tolist() == [10.0] * 8
    assert columns["status"].tolist() == ["ok"] * 8
    assert scorer.batch_tokens == 20
    # Twice too large, and then never again.
    assert scorer.tried == [80, 40, 20, 20, 20, 20]


@pytest.mark.slow
def test_worst_batch_is_tried_before_the_run(pool: EncodedDataset, tmp_path: Path) -> None:
    longest = max(pool.encode(row).length for row in range(60))
    scorer = SmallDevice(memory=4 * longest)
    job = job_of(pool, tmp_path)
    run_scorer(scorer, job, list(range(60)))
    # Halved until it fitted; after that no batch of the run failed.
    trial = [tokens for tokens in scorer.tried if tokens > scorer.memory]
    assert scorer.tried[: len(trial)] == trial
    assert scorer.batch_tokens <= scorer.memory
    assert all(status == "ok" for status in job.table.read()["status"].to_pylist())


@pytest.mark.slow
def test_row_that_does_not_fit_alone_gets_a_status(pool: EncodedDataset, tmp_path: Path) -> None:
    lengths = [pool.encode(row).length for row in range(60)]
    scorer = SmallDevice(memory=sorted(lengths)[-5])
    job = job_of(pool, tmp_path)
    run_scorer(scorer, job, list(range(60)))
    for length, record in zip(lengths, job.table.read().to_pylist(), strict=True):
        assert record["status"] == ("ok" if length <= scorer.memory else "out_of_memory")
        assert (record["utility"] is None) == (length > scorer.memory)


def test_batches_hold_rows_of_like_length_within_their_tokens() -> None:
    lengths = [5, 30, 7, 6, 29, 100, 31, 5]
    batches = cut_batches([encoded(i, length) for i, length in enumerate(lengths)], max_tokens=60)
    assert [[row.length for row in batch] for batch in batches] == [[5, 5, 6, 7], [29, 30], [31], [100]]
    assert sorted(row.row for batch in batches for row in batch) == list(range(8))
    limited = cut_batches([encoded(i, length) for i, length in enumerate(lengths)], max_tokens=60, max_rows=2)
    assert max(map(len, limited)) == 2


@pytest.mark.parametrize("order", [1, -1])
def test_batches_do_not_depend_on_order(order: int) -> None:
    rows = [encoded(i, length) for i, length in enumerate([5, 30, 7, 6, 6])][::order]
    assert [[row.row for row in batch] for batch in cut_batches(rows, 20)] == [[0, 3, 4], [2], [1]]
