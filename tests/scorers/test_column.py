"""Scores that stand in the pool."""

from __future__ import annotations

import datasets
import pytest
import transformers
from scored import build_scorer

from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError
from ost_hf.scoring.config import ScoringConfig


@pytest.fixture
def pool(text_path: str) -> EncodedDataset:
    values = {"rating": [0.5, None, 3.0], "flag": [True, False, True], "name": ["a", "b", "c"]}
    rows = datasets.Dataset.from_dict({"question": ["1?", "2?", "3?"], "answer": ["1", "2", "3"], **values})
    return EncodedDataset(Rows(rows), Encoder(transformers.AutoTokenizer.from_pretrained(text_path)))


def of_column(name: str | None) -> ScoringConfig:
    return ScoringConfig("column", sections={"column": {"name": name}})


def test_the_utility_is_the_columns_value_and_a_gap_is_said(pool: EncodedDataset) -> None:
    batch = [pool.encode(row) for row in (2, 0, 1)]
    scores = build_scorer(of_column("rating"), pool=pool).score(batch)
    assert [score.utility for score in scores] == [3.0, 0.5, None]
    assert (scores[2].status, scores[2].detail) == ("no_score", "column rating is empty")
    flags = build_scorer(of_column("flag"), pool=pool).score(batch)
    assert [score.utility for score in flags] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("column", "error", "message"),
    [
        (None, ConfigError, r"needs scoring\.column\.name"),
        ("rate", DataError, "no column 'rate'; there are: "),
        ("name", DataError, "must hold numbers"),
    ],
)
def test_what_is_no_score_is_refused(
    pool: EncodedDataset, column: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        build_scorer(of_column(column), pool=pool)
