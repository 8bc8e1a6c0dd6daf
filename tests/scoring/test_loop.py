"""The loop within the device's memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ost_hf.data.batching import cut_batches
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import Encoded
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scorers.protocol import Score
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringJob
from ost_hf.scoring.loop import SoundRow, run_scorer, score_within_memory
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


class Choosy:
    """Scores by length, but raises with the rows of certain lengths, as a model does with tokens that it lacks."""

    batch_size = None

    def __init__(self, *refused: int, batch_tokens: int = 10_000):
        self.refused, self.batch_tokens = set(refused), batch_tokens

    def score(self, batch: list[Encoded]) -> list[Score]:
        if self.refused & {row.length for row in batch}:
            raise IndexError(f"index out of range in self, at 0x7f3a1c2b3d4e of {'/home/me/pool/x.png'!r}")
        return [Score(float(row.length)) for row in batch]


@pytest.mark.parametrize("refused", [(10,), (14,), (10, 13), (17,)])
def test_row_that_stops_the_scorer_is_a_bad_row_and_the_others_are_scored(refused: tuple[int, ...]) -> None:
    batch = [encoded(i, 10 + i) for i in range(8)]
    columns = score_within_memory(Choosy(*refused), batch, SoundRow(batch))
    assert [status == "ok" for status in columns["status"]] == [row.length not in refused for row in batch]
    details = {detail for detail in columns["detail"] if detail}
    assert details == {"the scorer fails with this row: IndexError: index out of range in self, of 'x.png'"}


def test_first_row_of_a_run_can_be_the_one_to_blame() -> None:
    others = SoundRow(iter([encoded(1, 10), encoded(2, 11)]))
    columns = score_within_memory(Choosy(10), [encoded(0, 10)], others)
    assert columns["status"].tolist() == ["bad_row"]


def test_scorer_that_fails_with_every_row_ends_the_run_with_its_own_error() -> None:
    batch = [encoded(i, 10 + i) for i in range(4)]
    with pytest.raises(IndexError, match="index out of range"):
        score_within_memory(Choosy(*range(10, 14)), batch, SoundRow(batch))


def test_scorer_that_breaks_on_the_way_ends_the_run() -> None:
    scorer, sound = Choosy(), SoundRow()
    score_within_memory(scorer, [encoded(0, 10)], sound)
    scorer.refused = {10, 11}
    with pytest.raises(IndexError, match="index out of range"):
        score_within_memory(scorer, [encoded(1, 11)], sound)


def test_trial_before_the_run_leaves_a_bad_row_to_the_run(pool: EncodedDataset, tmp_path: Path) -> None:
    lengths = [pool.encode(row).length for row in range(60)]
    job = job_of(pool, tmp_path)
    run_scorer(Choosy(max(lengths)), job, list(range(60)))
    found = job.table.read().to_pylist()
    assert [record["status"] for record in found] == ["bad_row" if n == max(lengths) else "ok" for n in lengths]


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
