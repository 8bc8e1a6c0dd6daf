"""The same for TRL's SFTTrainer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
import transformers
from trl import SFTConfig, SFTTrainer

from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError, OSTError
from ost_hf.models import ModelConfig, load_model
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.runner import score_pool
from ost_hf.training.config import OSTConfig
from ost_hf.training.trl import OSTSFTConfig, OSTSFTTrainer, _check_rows


def config(folder: Path, **settings) -> OSTSFTConfig:
    return OSTSFTConfig(
        output_dir=str(folder), per_device_train_batch_size=2, max_steps=2, save_strategy="no", use_cpu=True,
        report_to=[], max_length=None, **settings,
    )  # fmt: skip


def question_rows(count: int) -> datasets.Dataset:
    return datasets.Dataset.from_list([{"prompt": f"question {i} ", "completion": f"answer {i}"} for i in range(count)])


def questions_in(trainer: OSTSFTTrainer) -> set[int]:
    text = " ".join(trainer.processing_class.decode(ids) for ids in trainer.train_dataset["input_ids"])
    return {int(number) for number in re.findall(r"question (\d+)", text)}


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("source", ["scores", "proxy"])
def test_sft_trainer_prepares_and_sees_the_kept_rows_alone(
    text_path: str, tmp_path: Path, packing: bool, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, proxy = question_rows(22), ProxyConfig(text_path, lora_r=2, warmup_min_steps=2, warmup_batch_size=4)
    pool, anchors = rows.select(range(20)), rows.select([20, 21])
    given: dict[str, Any] = {"proxy": proxy, "anchors": anchors, "strategy": "one_step"}
    if source == "scores":
        score_pool(ScoringRequest(tmp_path / "run", Rows(pool), None, proxy, ScoringConfig("random")))
        given = {"scores": tmp_path / "run"}
    args = config(tmp_path / "out", keep_count=5, packing=packing)
    args.max_length = 128 if packing else None
    prepared: list[int] = []
    prepare = SFTTrainer._prepare_dataset
    monkeypatch.setattr(
        SFTTrainer, "_prepare_dataset", lambda self, dataset, *more: prepared.append(len(dataset))
        or prepare(self, dataset, *more)
    )  # fmt: skip
    trainer = OSTSFTTrainer(
        load_model(ModelConfig(text_path)),
        args,
        train_dataset=pool,
        processing_class=transformers.AutoTokenizer.from_pretrained(text_path),
        **given,
    )
    assert prepared == [] and trainer.selection is None
    assert not (tmp_path / "out" / "ost").exists()
    assert trainer.train().metrics["train_loss"] > 0
    assert prepared == [5]
    assert questions_in(trainer) == {record["row"] for record in trainer.selection.kept.to_pylist()}
    assert (tmp_path / "out" / "ost" / "scores").exists() == (source == "proxy")
    trainer.select()
    trainer.get_train_dataloader()
    assert prepared == [5]


def test_sft_trainer_refuses_rows_of_another_kind_before_it_scores(text_path: str, tmp_path: Path) -> None:
    rows = question_rows(6)
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
    rows = question_rows(24)
    trainer = OSTSFTTrainer(
        load_model(ModelConfig(text_path)),
        config(tmp_path / "out", keep_count=5),
        train_dataset=rows.select(range(20)),
        eval_dataset={"held out": rows.select([22]), "copied": rows.select([3])},
        processing_class=transformers.AutoTokenizer.from_pretrained(text_path),
        proxy=text_path,
        anchors=rows.select([20, 21]),
        strategy="one_step",
    )
    for begin in (trainer.train, trainer.score):
        with pytest.raises(DataError, match=r"1 rows of the pool .* repeat a row of the evaluation set"):
            begin()
    assert not (tmp_path / "out" / "ost" / "scores").exists()


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
    trainer.select()
    assert len(trainer.train_dataset) == 2


@pytest.mark.parametrize("source", ["scores", "proxy"])
def test_sft_trainer_trains_the_vision_language_model(
    vlm_path: str,
    pool_dataset: datasets.Dataset,
    anchor_dataset: datasets.Dataset,
    tmp_path: Path,
    processor: Any,
    source: str,
) -> None:
    rows = pool_dataset.map(
        lambda row: {
            "prompt": [{"role": "user", "content": row["question"]}],
            "completion": [{"role": "assistant", "content": row["answer"]}],
        },
        remove_columns=[name for name in pool_dataset.column_names if name != "image"],
    )
    proxy = ProxyConfig(vlm_path, lora_r=2, warmup_min_steps=2, warmup_batch_size=4)
    given: dict[str, Any] = {"proxy": proxy, "anchors": anchor_dataset, "strategy": "one_step"}
    if source == "scores":
        score_pool(ScoringRequest(tmp_path / "run", Rows(rows), None, proxy, ScoringConfig("random")))
        given = {"scores": tmp_path / "run"}
    trainer = OSTSFTTrainer(
        load_model(ModelConfig(vlm_path)),
        config(tmp_path / "out", keep_ratio=0.2),
        train_dataset=rows,
        processing_class=processor,
        **given,
    )
    assert len(trainer.train_dataset) == 60
    assert trainer.train().metrics["train_loss"] > 0
    assert len(trainer.train_dataset) == 12
    assert set(trainer.selection.kept["row"].to_pylist()) == set(
        trainer.selection.rows(rows)._indices["indices"].to_pylist()
    )


def test_positional_arguments_of_sft_trainer_are_seen(text_path: str, tmp_path: Path) -> None:
    """Tokens can be scored where the tokenizer is known, which stands in the sixth place."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(text_path)
    tokens = [tokenizer(f"question {number} and its answer").input_ids for number in range(10)]
    rows = datasets.Dataset.from_dict({"input_ids": tokens, "labels": tokens})
    model = load_model(ModelConfig(text_path))
    args = (model, config(tmp_path, keep_count=3), None, rows.select(range(8)), None, tokenizer)
    given = {
        "proxy": ProxyConfig(text_path, lora_r=2, warmup_min_steps=1, warmup_batch_size=4),
        "anchors": rows.select([8, 9]),
        "strategy": "one_step",
    }
    trainer = OSTSFTTrainer(*args, **given)
    trainer.select()
    assert len(trainer.train_dataset) == 3
    with pytest.raises(TypeError, match="multiple values for argument 'processing_class'"):
        OSTSFTTrainer(*args, processing_class=tokenizer, **given)


@pytest.mark.parametrize("kind", ["plain", "sft", "stream"])
def test_arguments_of_any_kind_are_taken_and_stay_as_they_are(text_path: str, tmp_path: Path, kind: str) -> None:
    if kind == "plain":
        args = transformers.TrainingArguments(str(tmp_path), use_cpu=True)
    else:
        nested = {"gradient_checkpointing_kwargs": {"selective": False}}  # TRL takes that out
        args = SFTConfig(str(tmp_path), use_cpu=True, max_steps=2, bf16=False, **nested)
    before = args.to_dict()
    rows = question_rows(6)
    ids = Rows(rows).example_ids
    table = pa.table({"example_id": ids, "row": range(6), "kept": [True, True, True, False, False, False]})
    trainer = OSTSFTTrainer(
        text_path,
        args,
        train_dataset=rows.add_column("example_id", ids).to_iterable_dataset() if kind == "stream" else rows,
        eval_dataset=rows,
        processing_class=transformers.AutoTokenizer.from_pretrained(text_path),
        selection=table,
    )
    trainer.select()
    assert trainer.args is not args
    assert args.to_dict() == before
    assert len(list(trainer.train_dataset)) == 3
    assert "input_ids" in trainer.eval_dataset.column_names


def test_a_configuration_of_the_other_trainer_is_refused(text_path: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes an OSTSFTConfig, got OSTConfig"):
        OSTSFTTrainer(text_path, OSTConfig(str(tmp_path)), train_dataset=question_rows(2))


def test_sft_trainer_without_anything_of_ours_is_trls(text_path: str, tmp_path: Path) -> None:
    args = config(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(text_path)
    trainer = OSTSFTTrainer(text_path, args, None, question_rows(4), None, tokenizer)
    assert trainer.args is args
    assert "input_ids" in trainer.train_dataset.column_names
    assert trainer.score() is None and trainer.select() is None and trainer.selection is None
