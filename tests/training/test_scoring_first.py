"""A trainer's constructor scores nothing; score(), select() and train() do, once, and the training takes no notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
import task
import torch
import transformers

from ost_hf.data.config import AnchorConfig
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.models import ModelConfig, load_model
from ost_hf.selection.kept import Selection
from ost_hf.tables.score_table import ScoreTable
from ost_hf.training import plan
from ost_hf.training.config import OSTConfig
from ost_hf.training.trainer import OSTTrainer


def text(rows: list[dict[str, Any]], mark: str) -> datasets.Dataset:
    return datasets.Dataset.from_list(
        [{"question": f"{row['question']} {mark}{n}", "answer": row["answer"]} for n, row in enumerate(rows)]
    )


POOL, ANCHORS = text(task.pool_rows(16, seed=3), "p"), text(task.clean_rows(6, "anchors", seed=4), "a")
TEST = text(task.clean_rows(4, "test", seed=5), "t")


def args(folder: Path, **settings: Any) -> OSTConfig:
    defaults = {"max_steps": 3, "per_device_train_batch_size": 4, "save_strategy": "no", "use_cpu": True}
    return OSTConfig(str(folder), report_to=[], **{**defaults, **settings})


@pytest.fixture
def scored(text_path: str) -> dict[str, Any]:
    """What says how the pool is scored: all of it as a configuration could hold it."""
    return {
        "proxy": {"model": text_path, "lora_r": 2, "warmup_min_steps": 2, "warmup_batch_size": 4},
        "anchors": ANCHORS,
        "scoring": {"second_look": {"min_steps": 2, "batch_size": 4, "rounds": 1, "epochs": 0.1}},
    }


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The run directories that were scored into."""
    calls: list[Path] = []
    score = plan.score_pool

    def counting(request: Any) -> ScoreTable:
        calls.append(request.run_dir)
        return score(request)

    monkeypatch.setattr(plan, "score_pool", counting)
    return calls


def test_constructor_scores_hashes_and_encodes_nothing(
    text_path: str, scored: dict[str, Any], counted: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[str] = []
    for cls, name in ((EncodedDataset, "encode"), (Rows, "_hash")):
        before = getattr(cls, name)
        monkeypatch.setattr(
            cls, name, lambda self, *a, before=before, name=name, **k: touched.append(name) or before(self, *a, **k)
        )
    trainer = OSTTrainer(
        text_path, args(tmp_path, keep_count=5), train_dataset=POOL, eval_dataset={"one": TEST}, **scored
    )
    assert not touched and not counted
    assert trainer.selection is None
    assert not (tmp_path / "ost").exists()
    trainer.select()
    assert set(touched) == {"encode", "_hash"} and counted == [tmp_path / "ost"]


@pytest.mark.parametrize("begin", ["score", "select", "train", "get_train_dataloader"])
def test_the_pool_is_scored_once_whatever_comes_first(
    text_path: str, scored: dict[str, Any], counted: list[Path], tmp_path: Path, begin: str
) -> None:
    trainer = OSTTrainer(text_path, args(tmp_path, keep_count=5), train_dataset=POOL, **scored)
    made = getattr(trainer, begin)()
    assert counted == [tmp_path / "ost"]
    assert (tmp_path / "ost" / "scores" / "manifest.json").exists()
    assert (tmp_path / "ost" / "selection.parquet").exists() == (begin != "score")
    assert (trainer.selection is None) == (begin == "score")
    if begin == "score":
        assert isinstance(made, ScoreTable) and len(made) == 16
    trainer.score()
    selection = trainer.select()
    trainer.train()
    assert selection.kept_count == 5
    assert trainer.select() is selection is trainer.selection
    assert counted == [tmp_path / "ost"]


def test_scores_that_are_there_are_not_made_again(
    text_path: str, scored: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = OSTTrainer(text_path, args(tmp_path, keep_count=5), train_dataset=POOL, **scored)
    made.select()
    again = OSTTrainer(text_path, args(tmp_path, keep_count=4), train_dataset=POOL, **scored)
    parts = {part: part.stat().st_mtime_ns for part in (tmp_path / "ost").rglob("part-*.parquet")}
    assert again.select().kept_count == 4
    assert {part: part.stat().st_mtime_ns for part in (tmp_path / "ost").rglob("part-*.parquet")} == parts


@pytest.mark.parametrize("workers", [0, 1])
def test_training_is_the_same_whether_its_rows_were_scored_just_before_or_are_stored(
    text_path: str, scored: dict[str, Any], tmp_path: Path, workers: int
) -> None:
    """To the last bit: dropout and the order of the rows are drawn as if nothing had been scored."""

    def trained(folder: str, **given: Any) -> tuple[dict[str, torch.Tensor], list[float]]:
        model = load_model(ModelConfig(text_path))
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.3
        settings = {"eval_strategy": "steps", "eval_steps": 2, "logging_steps": 1, "dataloader_num_workers": workers}
        trainer = OSTTrainer(
            model,
            args(tmp_path / folder, **settings, keep_count=8 if "proxy" in given else None),
            train_dataset=POOL,
            eval_dataset=TEST,
            processing_class=transformers.AutoTokenizer.from_pretrained(text_path),
            **given,
        )
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return model.state_dict(), losses

    weights, losses = trained("scored", **scored)
    stored_weights, stored_losses = trained("stored", selection=tmp_path / "scored" / "ost")
    assert losses == stored_losses and len(losses) == 3
    assert all(torch.equal(weights[name], stored_weights[name]) for name in weights)


def test_arguments_of_the_caller_stay_as_they_are(text_path: str, scored: dict[str, Any], tmp_path: Path) -> None:
    given = args(tmp_path, keep_count=5, scoring=scored.pop("scoring"))
    before = given.to_dict()
    trainer = OSTTrainer(text_path, given, train_dataset=POOL, **scored)
    trainer.train()
    assert trainer.args is not given
    assert given.to_dict() == before
    assert given.remove_unused_columns and not trainer.args.remove_unused_columns


def test_without_anything_of_ours_the_arguments_are_the_callers_own(text_path: str, tmp_path: Path) -> None:
    tokens = datasets.Dataset.from_list([{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}] * 4)
    for given in (args(tmp_path), transformers.TrainingArguments(str(tmp_path), use_cpu=True)):
        trainer = OSTTrainer(text_path, given, train_dataset=tokens)
        assert trainer.args is given
        assert trainer.score() is None and trainer.select() is None and trainer.selection is None


def test_model_by_name_comes_with_its_processing_class(text_path: str, scored: dict[str, Any], tmp_path: Path) -> None:
    config = args(tmp_path, keep_count=5, **{name: scored[name] for name in ("proxy", "scoring")})
    trainer = OSTTrainer(text_path, config, train_dataset=POOL, anchors=ANCHORS)
    assert trainer.model.name_or_path == text_path
    assert {weight.dtype for weight in trainer.model.parameters()} == {torch.float32}
    assert trainer.processing_class.name_or_path == text_path
    assert trainer.train().metrics["train_rows_kept"] == 5
    own = transformers.AutoTokenizer.from_pretrained(text_path)
    assert (
        OSTTrainer(Path(text_path), config, train_dataset=POOL, anchors=ANCHORS, processing_class=own).processing_class
        is own
    )


def test_model_is_not_loaded_for_a_trainer_that_is_refused(
    text_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ost_hf.training.trainer.load_model", lambda config: pytest.fail("the model was loaded"))
    with pytest.raises(ValueError, match="the one_step scorer needs anchors"):
        OSTTrainer(text_path, args(tmp_path), train_dataset=POOL, proxy=text_path)


def test_anchors_of_every_kind_score_alike(text_path: str, tmp_path: Path) -> None:
    ANCHORS.to_json(tmp_path / "anchors.jsonl")
    ANCHORS.save_to_disk(tmp_path / "saved")
    file = str(tmp_path / "anchors.jsonl")
    kinds = {
        "file": file, "path": Path(file), "folder": str(tmp_path / "saved"), "dataset": ANCHORS,
        "list": ANCHORS.to_list(), "rows": Rows(ANCHORS), "config": AnchorConfig(file), "dict": {"path": file},
        "json": f'{{"path": "{file}"}}', "field": file,
    }  # fmt: skip
    utilities = {}
    for kind, anchors in kinds.items():
        config = args(tmp_path / kind, keep_count=5, **({"anchors": anchors} if kind == "field" else {}))
        trainer = OSTTrainer(
            text_path,
            config,
            train_dataset=POOL,
            proxy={"model": text_path, "lora_r": 2, "warmup_fraction": 0},
            strategy="one_step",
            scoring={"one_step": {"update_rule": "sgd"}},
            **({} if kind == "field" else {"anchors": anchors}),
        )
        utilities[kind] = trainer.score().read()["utility"].to_pylist()
    assert None not in utilities["file"]
    assert all(found == utilities["file"] for found in utilities.values()), utilities


@pytest.mark.parametrize("kind", ["scored here", "scored before", "quantized", "placed elsewhere", "selection"])
def test_target_makes_room_for_the_proxy_where_it_can_be_moved(
    text_path: str, scored: dict[str, Any], tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one accelerator, which this machine may not have: what is moved where is noted, and nothing is moved."""
    moves: list[str] = []
    given = {"selection": Selection(by_place(POOL))} if kind == "selection" else scored
    trainer = OSTTrainer(text_path, args(tmp_path, use_cpu=True), train_dataset=POOL, **given)
    if kind == "scored before":
        trainer.score()
    monkeypatch.setattr(trainer, "place_model_on_device", kind != "placed elsewhere")
    monkeypatch.setattr(OSTConfig, "device", property(lambda self: torch.device("cuda")))
    monkeypatch.setattr(trainer, "_move_model_to_device", lambda model, device: moves.append(device.type))
    monkeypatch.setattr(plan, "score_pool", lambda request: moves.append("scored") or ScoreTable(request.run_dir))
    if kind == "quantized":
        trainer.model.quantization_method = "bitsandbytes"
    trainer.score()
    scores = [] if kind in ("scored before", "selection") else ["scored"]
    assert moves == (["cpu", "scored", "cuda"] if kind == "scored here" else scores)
    trainer.score()
    assert moves == (["cpu", "scored", "cuda"] if kind == "scored here" else scores)


def by_place(rows: datasets.Dataset) -> pa.Table:
    ids = Rows(rows).example_ids
    return pa.table({"example_id": ids, "row": range(len(ids)), "kept": [True] * len(ids)})


def test_a_failed_scoring_brings_the_target_back_and_can_be_begun_again(
    text_path: str, scored: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[str] = []
    trainer = OSTTrainer(text_path, args(tmp_path, keep_count=5), train_dataset=POOL, **scored)
    with monkeypatch.context() as patch:
        patch.setattr(OSTConfig, "device", property(lambda self: torch.device("cuda")))
        patch.setattr(trainer, "_move_model_to_device", lambda model, device: moves.append(device.type))
        patch.setattr(plan, "score_pool", lambda request: (_ for _ in ()).throw(RuntimeError("out of memory")))
        state = torch.get_rng_state()
        with pytest.raises(RuntimeError, match="out of memory"):
            trainer.train()
        assert torch.equal(torch.get_rng_state(), state)
    assert moves == ["cpu", "cuda"]
    assert trainer.selection is None
    assert trainer.train().metrics["train_rows_kept"] == 5
