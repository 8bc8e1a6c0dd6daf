"""Encoded rows in memory: the same rows, never another's, and no more than allowed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers
from torch.utils.data import DataLoader

from ost_hf.data.config import EncodingConfig
from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.cache import EncodingCache
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import Encoded
from ost_hf.data.rows import Rows


@pytest.fixture
def tokenizer(text_path: str) -> Any:
    return transformers.AutoTokenizer.from_pretrained(text_path)


def make_rows(record: dict[str, Any]) -> Rows:
    return Rows(datasets.Dataset.from_list([record]))


def test_cached_rows_equal_fresh_ones(pool: EncodedDataset) -> None:
    never = Encoder(pool.encoder.processing_class, replace(pool.encoder.config, cache_mib=0))
    fresh = EncodedDataset(pool.rows, never)
    # Two of this test's own: the process keeps the caches of the last three sets, and others may have been read since.
    one, other = (EncodedDataset(pool.rows, pool.encoder) for _ in range(2))
    assert one.encode(3) is other.encode(3)
    assert fresh.encode(3) is not fresh.encode(3)
    assert all(torch.equal(value, fresh[3][key]) for key, value in pool[3].items())


def test_a_cached_row_survives_a_collator_that_takes_fields_out(pool: EncodedDataset) -> None:
    pool[0].pop("labels")
    assert "labels" in pool[0]


def test_other_settings_and_other_rows_do_not_meet_in_the_cache(tokenizer: Any) -> None:
    rows = make_rows({"question": "sum of 1 and 2 and 3 and 4?", "answer": "10"})
    whole = EncodedDataset(rows, Encoder(tokenizer))
    cut = EncodedDataset(rows, Encoder(tokenizer, EncodingConfig(max_length=4)))
    other = EncodedDataset(make_rows({"question": "sum?", "answer": "7"}), Encoder(tokenizer))
    assert [dataset.encode(0).status for dataset in (whole, cut, other)] == ["ok", "too_long", "ok"]
    assert len(whole[0]["input_ids"]) > len(other[0]["input_ids"])


def test_the_cache_stops_at_its_limit() -> None:
    rows = [Encoded("a", row, features={"input_ids": torch.zeros(1000, dtype=torch.long)}) for row in range(3)]
    cache = EncodingCache(limit_bytes=25_000)
    for row, encoded in enumerate(rows):
        cache.put(row, encoded)
    assert cache.get(1) is rows[1]
    assert cache.get(2) is None
    assert cache.bytes <= 25_000


def test_loader_workers_keep_no_rows(pool: EncodedDataset) -> None:
    """A tensor that was sent through shared memory holds a file open in the worker for as long as it is kept there."""
    loader = DataLoader(_OpenFiles(pool), batch_size=None, num_workers=1)
    opened = [count for _, count in loader]
    assert len(opened) == len(pool)
    assert max(opened) - min(opened[5:]) < 20


class _OpenFiles(torch.utils.data.Dataset):
    """Rows with the number of files that the worker holds open."""

    def __init__(self, dataset: EncodedDataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[Encoded, int]:
        return self.dataset.encode(row), len(list(Path("/proc/self/fd").iterdir()))
