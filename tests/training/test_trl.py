"""The same for TRL's SFTTrainer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
import transformers

from ost_hf.data.rows import Rows
from ost_hf.errors import DataError, OSTError
from ost_hf.models import ModelConfig, load_model
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.runner import score_pool
from ost_hf.selection.config import SelectionConfig
from ost_hf.selection.selector import select
from ost_hf.tables.score_table import ScoreTable
from ost_hf.training.trl import OSTSFTConfig, OSTSFTTrainer, _check_rows


def config(folder: Path, **settings) -> OSTSFTConfig:
    return OSTSFTConfig(
        output_dir=str(folder), per_device_train_batch_size=2, max_steps=2, save_strategy="no", use_cpu=True,
        report_to=[], max_length=None, **settings,
    )  # fmt: skip


@pytest.mark.parametrize("packing", [False, True])
def test_sft_trainer_sees_the_kept_rows_alone(text_path: str, tmp_path: Path, packing: bool) -> None:
    rows = datasets.Dataset.from_list([{"prompt": f"question {i} ", "completion": f"answer {i}"} for i in range(20)])
    score_pool(tmp_path / "run", Rows(rows), None, ProxyConfig(text_path), ScoringConfig("random"))
    settings = {"packing": True} if packing else {}
    args = config(tmp_path / "out", keep_count=5, **settings)
    args.max_length = 128 if packing else None
    trainer = OSTSFTTrainer(
        load_model(ModelConfig(text_path)),
        args,
        train_dataset=rows,
        processing_class=transformers.AutoTokenizer.from_pretrained(text_path),
        scores=tmp_path / "run",
    )
    table = select(ScoreTable(tmp_path / "run" / "scores").read(), SelectionConfig(keep_count=5))
    kept = {record["row"] for record in table.to_pylist() if record["kept"]}
    text = " ".join(trainer.processing_class.decode(ids) for ids in trainer.train_dataset["input_ids"])
    assert {int(number) for number in re.findall(r"question (\d+)", text)} == kept
    assert trainer.train().metrics["train_loss"] > 0


def test_sft_trainer_refuses_rows_of_another_kind_before_it_scores(text_path: str, tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list([{"prompt": f"question {i} ", "completion": f"answer {i}"} for i in range(6)])
    with pytest.raises(DataError, match=r"selects from a datasets\.Dataset, not from Rows"):
        OSTSFTTrainer(
            load_model(ModelConfig(text_path)),
            config(tmp_path / "out"),
            train_dataset=Rows(rows.select(range(4))),
            processing_class=transformers.AutoTokenizer.from_pretrained(text_path),
            proxy=text_path,
            anchors=rows.select([4, 5]),
        )
    assert not (tmp_path / "out").exists()


def test_sft_trainer_refuses_a_pool_with_rows_of_its_evaluation_set(text_path: str, tmp_path: Path) -> None:
    rows = datasets.Dataset.from_list([{"prompt": f"question {i} ", "completion": f"answer {i}"} for i in range(24)])
    with pytest.raises(DataError, match=r"1 rows of the pool .* repeat a row of the evaluation set"):
        OSTSFTTrainer(
            load_model(ModelConfig(text_path)),
            config(tmp_path / "out", keep_count=5),
            train_dataset=rows.select(range(20)),
            eval_dataset={"held out": rows.select([22]), "copied": rows.select([3])},
            processing_class=transformers.AutoTokenizer.from_pretrained(text_path),
            proxy=text_path,
            anchors=rows.select([20, 21]),
            scoring=ScoringConfig(),
        )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {},
            "rows of messages, prompt and completion, text or input_ids, and these have question, answer",
        ),
        ({"tokenizer": 1}, "unknown argument of SFTTrainer 'tokenizer'"),
    ],
)
def test_what_sft_trainer_cannot_take_is_said_before_the_pool_is_scored(
    text_path: str, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    rows = datasets.Dataset.from_list([{"question": f"question {i} ", "answer": f"answer {i}"} for i in range(8)])
    with pytest.raises(OSTError, match=message):
        OSTSFTTrainer(
            load_model(ModelConfig(text_path)),
            config(tmp_path / "out", keep_count=2),
            train_dataset=rows.select(range(4)),
            proxy=text_path,
            anchors=rows.select([4, 5]),
            **given,
        )
    assert not (tmp_path / "out" / "ost").exists()


def test_messages_that_sft_trainer_will_learn_whole_are_warned_of(
    text_path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = datasets.Dataset.from_list([{"messages": turns, "example_id": i} for i in range(4)])
    table = pa.table({"example_id": list("0123"), "kept": [True, True, False, False], "rank": [0, 1, 2, 3]})
    for only, warnings in ((False, 1), (True, 0)):
        caplog.clear()
        _check_rows(config(tmp_path, assistant_only_loss=only), rows, None)
        assert sum("assistant_only_loss=True" in record.getMessage() for record in caplog.records) == warnings
    trainer = OSTSFTTrainer(
        load_model(ModelConfig(text_path)),
        config(tmp_path),
        train_dataset=rows,
        processing_class=transformers.AutoTokenizer.from_pretrained(text_path),
        selection=table,
    )
    assert len(trainer.train_dataset) == 2


def test_sft_trainer_trains_the_vision_language_model(
    vlm_path: str, pool_dataset: datasets.Dataset, tmp_path: Path, processor
) -> None:
    rows = pool_dataset.map(
        lambda row: {
            "prompt": [{"role": "user", "content": row["question"]}],
            "completion": [{"role": "assistant", "content": row["answer"]}],
        },
        remove_columns=[name for name in pool_dataset.column_names if name != "image"],
    )
    score_pool(tmp_path / "run", Rows(rows), None, ProxyConfig(vlm_path), ScoringConfig("random"))
    trainer = OSTSFTTrainer(
        load_model(ModelConfig(vlm_path)),
        config(tmp_path / "out", keep_ratio=0.2),
        train_dataset=rows,
        processing_class=processor,
        scores=tmp_path / "run",
    )
    assert len(trainer.train_dataset) == 12
    assert trainer.train().metrics["train_loss"] > 0
