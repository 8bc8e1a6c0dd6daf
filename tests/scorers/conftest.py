"""What the judge's tests share."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
import transformers

from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows


@pytest.fixture(scope="session")
def sums() -> Rows:
    """Twelve rows; what a test's judge says of one can be read off its question."""
    numbers = range(12)
    columns = {"question": [f"{n} + {n}" for n in numbers], "answer": [str(2 * n) for n in numbers]}
    return Rows(datasets.Dataset.from_dict(columns))


@pytest.fixture(scope="session")
def text_pool(sums: Rows, text_path: str) -> EncodedDataset:
    """They, encoded for the tiny text model."""
    return EncodedDataset(sums, Encoder(transformers.AutoTokenizer.from_pretrained(text_path)))


@pytest.fixture
def short_prompt(tmp_path: Path) -> str:
    """A prompt file with the question alone: the tiny models have little room."""
    (tmp_path / "short.jinja").write_text("{{ question }}")
    return str(tmp_path / "short.jinja")
