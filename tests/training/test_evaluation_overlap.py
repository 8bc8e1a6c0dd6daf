"""The pool that a trainer scores is held against its own evaluation sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import task
import torch
import transformers
from torch.utils.data import TensorDataset

from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.errors import DataError
from ost_hf.models import ModelConfig, load_model
from ost_hf.proxy.config import ProxyConfig
from ost_hf.tables.score_table import ScoreTable
from ost_hf.training.config import OSTConfig
from ost_hf.training.trainer import OSTTrainer

REFUSED = r"1 rows of the pool \({}; row 3, \w+-0, is like \w+-0\) repeat a row of the evaluation set"
EXACT, NEAR = REFUSED.format("1 exactly, 0 nearly"), REFUSED.format("0 exactly, 1 nearly")


def text(rows: list[dict[str, Any]]) -> datasets.Dataset:
    return datasets.Dataset.from_list([{name: row[name] for name in ("question", "answer")} for row in rows])


POOL = text([{**row, "question": f"{row['question']} {n}"} for n, row in enumerate(task.pool_rows(12, seed=3))])
ANCHORS = text([{**row, "question": f"{row['question']} a"} for row in task.clean_rows(4, "anchors", seed=4)])
CLEAN = text([{**row, "question": f"{row['question']} t"} for row in task.clean_rows(4, "test", seed=5)])
COPY = POOL.select([3])
SHOUTED = COPY.map(lambda row: {"question": row["question"].upper()})


@pytest.fixture
def encoder(text_path: str) -> Encoder:
    return Encoder(transformers.AutoTokenizer.from_pretrained(text_path))


def trainer(text_path: str, folder: Path, eval_dataset: Any, **settings: Any) -> OSTTrainer:
    defaults: dict[str, Any] = {"train_dataset": POOL, "anchors": ANCHORS, "strategy": "one_step"}
    return OSTTrainer(
        load_model(ModelConfig(text_path)),
        OSTConfig(output_dir=str(folder), max_steps=1, save_strategy="no", use_cpu=True, report_to=[], keep_ratio=1.0),
        eval_dataset=eval_dataset,
        processing_class=transformers.AutoTokenizer.from_pretrained(text_path),
        proxy=ProxyConfig(text_path, lora_r=2, warmup_min_steps=1, warmup_batch_size=4),
        **{**defaults, **settings},
    )


def tokenised(rows: datasets.Dataset, encoder: Encoder) -> datasets.Dataset:
    encoded = EncodedDataset(Rows(rows), encoder)
    columns = ("input_ids", "labels")
    return datasets.Dataset.from_list([{name: row[name].tolist() for name in columns} for row in encoded])


@pytest.mark.parametrize(
    "evaluation",
    [COPY, Rows(COPY), {"clean": CLEAN, "copied": COPY}, {"copied": COPY, "clean": Rows(CLEAN)},
     datasets.concatenate_datasets([CLEAN, COPY]), COPY.add_column("input_ids", [[1, 2]])],
)  # fmt: skip
def test_a_row_of_an_evaluation_set_in_the_pool_is_refused_and_named(
    evaluation: Any, text_path: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=EXACT):
        trainer(text_path, tmp_path, evaluation).train()
    assert not (tmp_path / "ost" / "scores").exists()


def test_encoded_sets_and_near_copies_are_refused_too(text_path: str, encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=EXACT):
        trainer(text_path, tmp_path, EncodedDataset(Rows(COPY), encoder)).score()
    near = {"duplicates": DuplicatesConfig(near=True)}
    for evaluation in (SHOUTED, {"clean": CLEAN, "shouted": SHOUTED}):
        with pytest.raises(DataError, match=NEAR):
            trainer(text_path, tmp_path, evaluation, **near).score()


def test_tokens_are_held_against_tokens(text_path: str, encoder: Encoder, tmp_path: Path) -> None:
    pool, copy, anchors = (tokenised(rows, encoder) for rows in (POOL, COPY, ANCHORS))
    with pytest.raises(DataError, match=EXACT):
        trainer(text_path, tmp_path, copy, train_dataset=pool, anchors=anchors).score()


@pytest.mark.parametrize(("action", "left"), [("drop", 10), ("report", 12), ("off", 12)])
def test_copies_in_several_sets_are_dropped_or_stay_as_asked(
    action: str, left: int, text_path: str, tmp_path: Path
) -> None:
    sets = {"one": COPY, "other": POOL.select([7])}
    made = trainer(text_path, tmp_path, sets, duplicates=DuplicatesConfig(evaluation=action))
    assert made.num_examples(made.get_train_dataloader()) == left
    statuses = ScoreTable(tmp_path / "ost" / "scores").read()["status"].to_pylist()
    dropped = [row for row, status in enumerate(statuses) if status == "evaluation_overlap"]
    assert dropped == ([3, 7] if action == "drop" else [])
    turned = trainer(text_path, tmp_path, dict(reversed(sets.items())), duplicates=DuplicatesConfig(evaluation=action))
    assert turned.num_examples(turned.get_train_dataloader()) == left


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("tokens", "its rows are tokens without their text, and the pool's are text"),
     ("tensors", "a TensorDataset cannot be read; give a datasets.Dataset or Rows")],
)  # fmt: skip
def test_a_set_without_text_is_named_in_a_warning(
    kind: str, reason: str, text_path: str, encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blind = tokenised(COPY, encoder) if kind == "tokens" else TensorDataset(torch.zeros(1))
    trainer(text_path, tmp_path, {"clean": CLEAN, "blind": blind})
    warned = [record.getMessage() for record in caplog.records if "held against" in record.getMessage()]
    assert warned == [f"eval_dataset 'blind' is not held against the pool, which may hold rows of it: {reason}"]
