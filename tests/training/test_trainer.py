"""OSTTrainer on the tiny Qwen3-VL and a tiny Qwen3."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
import task
import torch
import transformers

from ost_hf.data.collator import Collator
from ost_hf.data.config import AnchorConfig, DatasetConfig, EncodingConfig
from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.errors import ConfigError, DataError
from ost_hf.models import ModelConfig, load_model
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.runner import score_pool
from ost_hf.selection.config import SelectionConfig
from ost_hf.selection.kept import Selection
from ost_hf.selection.selector import select_rows
from ost_hf.strategy import STRATEGIES
from ost_hf.tables.score_table import ScoreTable
from ost_hf.training.config import OSTConfig
from ost_hf.training.sampler import OSTSampler
from ost_hf.training.trainer import OSTTrainer


def config(folder: Path, **settings: Any) -> OSTConfig:
    defaults = {
        "per_device_train_batch_size": 4,
        "max_steps": 2,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": [],
    }
    return OSTConfig(output_dir=str(folder), **{**defaults, **settings})


@pytest.fixture
def model(vlm_path: str) -> Any:
    return load_model(ModelConfig(vlm_path))


@pytest.fixture(scope="module")
def scores(pool_dataset: datasets.Dataset, vlm_path: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with random scores of the pool."""
    folder = tmp_path_factory.mktemp("run")
    score_pool(ScoringRequest(folder, Rows(pool_dataset), None, ProxyConfig(vlm_path), ScoringConfig("random")))
    return folder


@pytest.fixture(scope="module")
def selection(scores: Path) -> pa.Table:
    return select_rows(ScoreTable(scores / "scores").read(), SelectionConfig(keep_count=20)).table


def kept_rows(selection: pa.Table) -> set[int]:
    return {record["row"] for record in selection.to_pylist() if record["kept"]}


def test_scores_are_selected_by_the_arguments(model, processor, pool_dataset, scores: Path, tmp_path: Path) -> None:
    trainer = OSTTrainer(
        model, config(tmp_path, keep_ratio=0.25), train_dataset=pool_dataset, processing_class=processor, scores=scores
    )
    loader = trainer.get_train_dataloader()
    assert trainer.num_examples(loader) == 15
    assert len(loader) == 4
    assert sum(len(batch["labels"]) for batch in loader) == 15


def test_training_sees_the_kept_rows_and_no_others(model, processor, pool, selection, tmp_path: Path) -> None:
    seen: list[int] = []

    class Watched(EncodedDataset):
        def __getitem__(self, row: int):
            seen.append(row)
            return super().__getitem__(row)

    trainer = OSTTrainer(
        model,
        config(tmp_path, max_steps=-1, num_train_epochs=2),
        data_collator=Collator.of(processor),
        train_dataset=Watched(pool.rows, pool.encoder),
        selection=selection,
    )
    before = model.lm_head.weight.clone()
    result = trainer.train()
    assert sorted(seen) == sorted([*kept_rows(selection)] * 2)
    assert seen[:20] != seen[20:]
    assert not torch.equal(model.lm_head.weight, before)
    assert trainer.state.global_step == 10
    assert trainer.state.epoch == 2.0
    assert result.metrics["train_rows_kept"] == 20
    assert result.metrics["train_rows_pool"] == 60
    seconds = result.metrics["train_runtime"]
    assert result.metrics["train_samples_per_second"] == pytest.approx(40 / seconds, rel=0.01)


def test_log_counts_kept_rows(model, processor, pool_dataset, selection, tmp_path: Path, caplog) -> None:
    trainer = OSTTrainer(
        model, config(tmp_path), train_dataset=pool_dataset, processing_class=processor, selection=selection
    )
    logger = logging.getLogger("transformers.trainer")
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    try:
        trainer.train()
    finally:
        logger.removeHandler(caplog.handler)
    assert "Num examples = 20" in caplog.text


@pytest.mark.parametrize("order", ["shuffled", "ranked", "weighted"])
def test_sampler_is_ours_with_the_order_asked_for(model, processor, pool_dataset, selection, tmp_path, order) -> None:
    trainer = OSTTrainer(
        model,
        config(tmp_path, sampling=order, seed=1, data_seed=7),
        train_dataset=pool_dataset,
        processing_class=processor,
        selection=selection,
    )
    trainer.select()
    sampler = trainer._get_train_sampler()
    assert isinstance(sampler, OSTSampler)
    assert (sampler.order, sampler.seed) == (order, 7)


def test_ranked_rows_come_in_the_order_of_the_selection_not_of_their_utilities(
    model, processor, pool_dataset, selection, tmp_path: Path
) -> None:
    """A doubtful row that only fills the quota may have a high utility."""
    ranks = [None if rank is None else 61 - rank for rank in selection["rank"].to_pylist()]
    turned = selection.set_column(selection.column_names.index("rank"), "rank", pa.array(ranks, pa.int64()))
    trainer = OSTTrainer(
        model,
        config(tmp_path, sampling="ranked"),
        train_dataset=pool_dataset,
        processing_class=processor,
        selection=turned,
    )
    records = sorted((r for r in turned.to_pylist() if r["kept"]), key=lambda record: record["rank"])
    trainer.select()
    utilities = [record["utility"] for record in records]
    assert utilities == sorted(utilities) != sorted(utilities, reverse=True)
    assert list(trainer._get_train_sampler()) == [record["row"] for record in records]


@pytest.mark.parametrize("streamed", [False, True])
def test_tokens_and_a_collator_of_ones_own_are_trained_on_by_id(text_path: str, tmp_path: Path, streamed: bool) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(text_path)
    ids, kept = [f"row {number}" for number in range(12)], {1, 4, 5, 8, 11}
    table = pa.table({"example_id": ids, "row": range(12), "kept": [number in kept for number in range(12)]})
    tokens = [tokenizer(f"question {number} and its answer")["input_ids"] for number in range(12)]
    turned = range(11, -1, -1)
    given = datasets.Dataset.from_list([{"example_id": ids[n], "input_ids": tokens[n]} for n in turned])
    seen: list[list[int]] = []

    def collate(rows: list[dict[str, Any]]) -> Any:
        seen.extend(row["input_ids"] for row in rows)
        return transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)(rows)

    trainer = OSTTrainer(
        load_model(ModelConfig(text_path)),
        config(tmp_path),
        data_collator=collate,
        train_dataset=given.to_iterable_dataset() if streamed else given,
        selection=table,
    )
    trainer.train()  # two steps of four rows: all five, and some again
    if streamed:
        assert seen[:5] == [tokens[number] for number in turned if number in kept]
    else:
        assert trainer.num_examples(trainer.get_train_dataloader()) == 5
    assert {tuple(row) for row in seen} == {tuple(tokens[number]) for number in kept}


def test_rows_of_an_evaluation_set_that_cannot_be_used_are_left_out(
    model, processor, pool_dataset, selection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held_out = pool_dataset.select(range(4)).map(
        lambda row, n: {"answer": "" if n == 1 else row["answer"]}, with_indices=True
    )
    trainer = OSTTrainer(
        model,
        config(tmp_path),
        train_dataset=pool_dataset,
        eval_dataset={"some": held_out, "all": held_out.select([0, 2, 3])},
        processing_class=processor,
        selection=selection,
    )
    assert [len(one) for one in trainer.eval_dataset.values()] == [3, 3]
    assert "1 of 4 rows of eval_dataset 'some' cannot be used and are left out, such as row 1 (no_labels" in caplog.text
    found = trainer.evaluate()
    assert found["eval_some_loss"] == pytest.approx(found["eval_all_loss"], rel=1e-4)
    useless = OSTTrainer(
        model,
        config(tmp_path, eval_strategy="steps"),
        train_dataset=pool_dataset,
        eval_dataset=held_out.select([1]),
        processing_class=processor,
        selection=selection,
    )
    for ask in (useless.train, useless.evaluate):
        with pytest.raises(DataError, match="no row of eval_dataset can be used, such as row 0"):
            ask()
    assert useless.selection is None


def test_an_order_is_not_asked_of_a_stream(model, processor, pool_dataset, selection, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sampling 'ranked' needs rows in any order, but an iterable training set"):
        OSTTrainer(
            model,
            config(tmp_path, sampling="ranked"),
            train_dataset=pool_dataset.to_iterable_dataset(),
            processing_class=processor,
            selection=selection,
        )


def test_selection_may_be_a_file_and_args_plain(model, processor, pool_dataset, selection, tmp_path: Path) -> None:
    Selection(selection).write(tmp_path / "selection.parquet")
    args = transformers.TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True)
    trainer = OSTTrainer(
        model, args, train_dataset=pool_dataset, processing_class=processor, selection=tmp_path / "selection.parquet"
    )
    assert trainer.num_examples(trainer.get_train_dataloader()) == 20


def test_without_anything_of_ours_it_is_a_plain_trainer(model, processor, pool, tmp_path: Path) -> None:
    results = []
    for cls in (transformers.Trainer, OSTTrainer):
        torch.manual_seed(0)
        trainer = cls(load_model(ModelConfig(model.name_or_path)), config(tmp_path), Collator.of(processor), pool)
        results.append(trainer.train().training_loss)
        assert trainer.num_examples(trainer.get_train_dataloader()) == 60
        assert isinstance(trainer._get_train_sampler(), torch.utils.data.RandomSampler)
        assert "train_rows_kept" not in trainer.state.log_history[-1]
    assert results[0] == results[1]


def test_proxy_and_anchors_score_first(
    model, processor, pool_dataset, anchor_dataset, test_dataset, vlm_path, tmp_path: Path
) -> None:
    proxy = ProxyConfig(vlm_path, warmup_min_steps=2, warmup_batch_size=4)
    trainer = OSTTrainer(
        model,
        config(tmp_path, keep_count=10),
        train_dataset=pool_dataset,
        eval_dataset=test_dataset,
        processing_class=processor,
        proxy=proxy,
        anchors=anchor_dataset,
        scoring={"second_look": {"rounds": 1, "epochs": 0.1, "min_steps": 2, "batch_size": 4}, "sketch_size": 16},
    )
    assert not (tmp_path / "ost").exists()
    assert trainer.num_examples(trainer.get_train_dataloader()) == 10
    names = {"duplicates.json", "proxy", "scores", "selection.parquet", "selection.json"}
    assert {path.name for path in (tmp_path / "ost").iterdir()} == names
    assert not any("lora" in name for name, _ in trainer.model.named_parameters())
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0


@pytest.mark.parametrize(
    ("settings", "left"),
    [({"strategy": "one_step", "duplicates": DuplicatesConfig(within_pool="drop")}, 12), ({}, 12),
     ({"duplicates": {"within_pool": "report"}}, 14), ({"scoring": ScoringConfig()}, 12),
     ({"strategy": "one_step"}, 14), ({"scoring": {"second_stage": None}}, 12)],
)  # fmt: skip
def test_copies_are_dropped_where_that_is_asked_for_and_by_default(
    settings: dict, left: int, text_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The default's four trainings have nothing to do with copies.
    options = {"rounds": 1, "epochs": 0.1, "min_steps": 1, "batch_size": 4}
    short = {"second_stage": "second_look", "second_look": options}
    monkeypatch.setitem(STRATEGIES["auto"], "scoring", short)
    rows = [
        {"question": row["question"] + str(n), "answer": row["answer"]} for n, row in enumerate(task.pool_rows(12, 3))
    ]
    anchors = datasets.Dataset.from_list([{**row, "answer": row["answer"] + " 100"} for row in rows[:4]])
    trainer = OSTTrainer(
        load_model(ModelConfig(text_path)),
        config(tmp_path, keep_ratio=1.0),
        train_dataset=datasets.Dataset.from_list([*rows, rows[0], rows[5]]),
        processing_class=transformers.AutoTokenizer.from_pretrained(text_path),
        proxy=ProxyConfig(text_path, lora_r=2, warmup_min_steps=2, warmup_batch_size=4),
        anchors=anchors,
        **settings,
    )
    assert trainer.num_examples(trainer.get_train_dataloader()) == left
    with pytest.raises(ConfigError, match="duplicates says how a pool is scored here"):
        OSTTrainer(load_model(ModelConfig(text_path)), config(tmp_path), duplicates=DuplicatesConfig())


def test_proxy_of_another_family_selects_for_the_target(text_path: str, vlm_path: str, tmp_path: Path) -> None:
    """Proxy and target have their own tokenizers and are joined by example_id."""
    rows = task.pool_rows(24, seed=3)
    text = datasets.Dataset.from_list([{"question": row["question"], "answer": row["answer"]} for row in rows])
    anchors = {"path": str(tmp_path / "anchors.jsonl")}
    text.select(range(4)).map(lambda row: {"answer": row["answer"] + "!"}).to_json(anchors["path"])
    trainer = OSTTrainer(
        load_model(ModelConfig(vlm_path)),
        config(tmp_path / "out"),
        train_dataset=text,
        processing_class=transformers.AutoProcessor.from_pretrained(vlm_path),
        proxy=ProxyConfig(text_path, lora_r=2, warmup_min_steps=2, warmup_batch_size=4),
        anchors=AnchorConfig(**anchors),
        strategy="one_step",
    )
    assert trainer.num_examples(trainer.get_train_dataloader()) == 12
    trainer.train()


def test_row_that_the_target_cannot_use_is_left_out_and_named(
    model, processor, pool_dataset, scores: Path, tmp_path: Path, caplog
) -> None:
    lengths = [Encoder(processor).encode(Rows(pool_dataset), row).length for row in range(60)]
    limit = sorted(lengths)[-4]
    too_long = {row for row, length in enumerate(lengths) if length > limit}
    trainer = OSTTrainer(
        model,
        config(tmp_path, keep_ratio=1.0),
        train_dataset=pool_dataset,
        processing_class=processor,
        scores=scores,
        encoding=EncodingConfig(max_length=limit),
    )
    assert too_long
    assert trainer.num_examples(trainer.get_train_dataloader()) == 60 - len(too_long)
    named = json.loads((tmp_path / "rows_not_used.json").read_text())
    assert {entry["row"] for entry in named} == too_long
    assert {entry["status"] for entry in named} == {"too_long"}
    assert f"{len(too_long)} of 60 kept rows cannot be used by the target" in caplog.text


def test_logs_of_a_resumed_training_go_on_with_the_same_rows(
    processor, pool_dataset, selection, vlm_path, tmp_path
) -> None:
    def make(folder: Path, **settings: Any) -> OSTTrainer:
        torch.manual_seed(0)
        return OSTTrainer(
            load_model(ModelConfig(vlm_path)),
            config(folder, max_steps=8, logging_steps=1, **settings),
            train_dataset=pool_dataset,
            processing_class=processor,
            selection=selection,
        )

    whole = make(tmp_path / "whole")
    whole.train()
    make(tmp_path / "parts", save_strategy="steps", save_steps=3).train()
    resumed = make(tmp_path / "parts")
    resumed.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-6"))
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "given", "error", "message"),
    [
        ({}, {"scores": "x", "proxy": "y", "anchors": 1}, ConfigError, "give one of scores, selection and proxy"),
        ({}, {"proxy": "y"}, DataError, "the one_step scorer needs anchors"),
        ({}, {"anchors": 1}, ConfigError, "anchors came without a proxy"),
        ({"keep_ratio": 0.5}, {"selection": "x"}, ConfigError, "says already what is kept"),
        ({"keep_ratio": 0.5}, {}, ConfigError, "need something to choose by"),
        ({"sampling": "ranked"}, {}, ConfigError, "need something to choose by"),
        (
            {"train_sampling_strategy": "group_by_length"},
            {"scores": "run"},
            ConfigError,
            "OSTSampler decides the order",
        ),
    ],
)
def test_contradictions_are_refused(model, pool, scores, tmp_path, settings, given, error, message) -> None:
    given = {name: scores if value == "run" else value for name, value in given.items()}
    with pytest.raises(error, match=message):
        OSTTrainer(model, config(tmp_path, **settings), train_dataset=pool, **given)


@pytest.mark.parametrize(
    ("settings", "given", "error", "message"),
    [
        ({"train_sampling_strategy": "group_by_length"}, {}, ConfigError, "OSTSampler decides the order"),
        ({"eval_strategy": "steps"}, {}, ConfigError, "eval_strategy is .*, but there is no eval_dataset"),
        ({}, {"tokenizer": 1}, ConfigError, "unknown argument of Trainer 'tokenizer'"),
        ({}, {"processing_class": None}, ConfigError, "text is encoded by OSTTrainer: give processing_class"),
        (
            {},
            {"train_dataset": "stream"},
            ConfigError,
            "a stream is not encoded by OSTTrainer, and this one has the col",
        ),
        (
            {},
            {"anchors": {1, 2}},
            DataError,
            "anchors must be a name, a file, a datasets.Dataset, a list of rows, Rows or a configuration, got a set",
        ),
        ({}, {"proxy": torch.nn.Linear(1, 1)}, ConfigError, "proxy must be a model's name, .* got a Linear"),
    ],
)
def test_what_could_not_be_trained_is_said_before_the_pool_is_scored(
    model, processor, pool_dataset, anchor_dataset, vlm_path, tmp_path, settings, given, error, message
) -> None:
    arguments = {
        "train_dataset": pool_dataset, "processing_class": processor, "proxy": vlm_path, "anchors": anchor_dataset
    } | given  # fmt: skip
    if arguments["train_dataset"] == "stream":
        arguments["train_dataset"] = pool_dataset.to_iterable_dataset()
    with pytest.raises(error, match=message):
        OSTTrainer(model, config(tmp_path / "out", **settings), **arguments)
    assert not (tmp_path / "out" / "ost").exists()


def test_weights_in_which_small_steps_are_lost_are_warned_of(
    model, processor, pool, selection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"data_collator": Collator.of(processor), "train_dataset": pool, "selection": selection}
    OSTTrainer(model, config(tmp_path), **given)
    assert "mixed precision" not in caplog.text
    OSTTrainer(model.to(torch.bfloat16), config(tmp_path), **given)
    assert "are trained in bfloat16, in which a step below a few thousandths of a weight is lost" in caplog.text


def test_tokens_with_labels_are_padded_without_a_collator(text_path: str, tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(text_path)
    texts = [tokenizer(f"row {'and ' * number}").input_ids for number in range(8)]
    rows = datasets.Dataset.from_dict({"example_id": list(range(8)), "input_ids": texts, "labels": texts})
    table = pa.table({"example_id": list(map(str, range(8))), "kept": [True] * 6 + [False] * 2, "rank": list(range(8))})
    trainer = OSTTrainer(
        load_model(ModelConfig(text_path)),
        config(tmp_path),
        train_dataset=rows.with_format("torch"),
        processing_class=tokenizer,
        selection=table,
    )
    assert sum(len(batch["labels"]) for batch in trainer.get_train_dataloader()) == 6
    assert trainer.train().metrics["train_loss"] > 0


def test_rows_of_a_file_find_their_images_beside_it(
    model, processor, pool_dataset, anchor_dataset, vlm_path, tmp_path: Path
) -> None:
    lines = []
    for number, row in enumerate(pool_dataset.select(range(8))):
        row["image"].save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"question": row["question"], "answer": row["answer"], "image": f"{number}.png"}))
    (tmp_path / "pool.jsonl").write_text("\n".join(lines))
    trainer = OSTTrainer(
        model,
        config(tmp_path / "out", keep_count=4),
        train_dataset=Rows.load(DatasetConfig(str(tmp_path / "pool.jsonl"))),
        processing_class=processor,
        proxy=ProxyConfig(vlm_path, warmup_min_steps=1, warmup_batch_size=2),
        anchors=anchor_dataset,
        strategy="one_step",
    )
    assert trainer.num_examples(trainer.get_train_dataloader()) == 4
    assert set(ScoreTable(tmp_path / "out" / "ost" / "scores").read()["status"].to_pylist()) == {"ok"}


def test_selection_without_a_training_set_is_refused(model, scores, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no train_dataset to select from"):
        OSTTrainer(model, config(tmp_path), scores=scores)


@pytest.mark.parametrize("ratio", [0, 1.01])
def test_ratio_outside_zero_to_one_is_refused(tmp_path: Path, ratio: float) -> None:
    with pytest.raises(ConfigError, match="keep_ratio must be a number > 0 and <= 1"):
        config(tmp_path, keep_ratio=ratio)


def test_selection_of_another_dataset_is_refused(model, processor, selection, tmp_path: Path) -> None:
    other = task.as_dataset(task.pool_rows(60, seed=77))
    with pytest.raises(DataError, match="20 of 20 kept rows are not in the training set"):
        OSTTrainer(
            model, config(tmp_path), train_dataset=other, processing_class=processor, selection=selection
        ).select()
