"""Rows that a target can use are found when they are asked for, and nothing random is drawn for that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch.utils.data import DataLoader

from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.errors import DataError
from ost_hf.selection.kept import Kept
from ost_hf.training import usable as usable_rows
from ost_hf.training.usable import UsableRows, drop_unusable


@pytest.fixture
def encoder(processor: Any) -> Encoder:
    return Encoder(processor)


def rows(answers: list[str]) -> Rows:
    return Rows(datasets.Dataset.from_list([{"prompt": f"p{i}", "completion": a} for i, a in enumerate(answers)]))


@pytest.mark.parametrize("workers", [0, 1])
def test_rows_are_looked_for_once_and_only_when_they_are_asked_for(
    encoder: Encoder, workers: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    counted: list[int] = []
    look = usable_rows._unusable
    monkeypatch.setattr(
        usable_rows,
        "_unusable",
        lambda dataset, places, number: counted.append(number) or look(dataset, places, number),
    )
    dataset = EncodedDataset(rows(["a", "", "c", "d"]), encoder)
    usable = UsableRows(dataset, "the test set", workers)
    assert counted == []
    assert len(usable) == 3
    assert usable.rows == [0, 2, 3]
    assert [row["input_ids"].tolist() for row in DataLoader(usable, batch_size=None)] == [
        dataset[place]["input_ids"].tolist() for place in (0, 2, 3)
    ]
    assert counted == [workers]
    assert (
        caplog.text.count("1 of 4 rows of the test set cannot be used and are left out, such as row 1 (no_labels") == 1
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_looking_draws_nothing_of_the_generator_that_a_training_draws_from(
    encoder: Encoder, workers: int, tmp_path: Path
) -> None:
    dataset = EncodedDataset(rows(["a", "", "c"]), encoder)
    before = torch.get_rng_state()
    assert len(UsableRows(dataset, "the test set", workers)) == 2
    kept = drop_unusable(dataset, Kept([2, 1], None, ["c", "b"], 3), tmp_path / "report.json", workers)
    assert kept.indices == [2]
    assert torch.equal(torch.get_rng_state(), before)
    [named] = json.loads((tmp_path / "report.json").read_text())
    assert (named["row"], named["status"]) == (1, "no_labels")


def test_a_set_of_which_no_row_can_be_used_is_refused_when_it_is_asked(encoder: Encoder) -> None:
    usable = UsableRows(EncodedDataset(rows(["", ""]), encoder), "eval_dataset", 0)
    for ask in (lambda: len(usable), lambda: usable[0]):
        with pytest.raises(DataError, match="no row of eval_dataset can be used, such as row 0"):
            ask()
