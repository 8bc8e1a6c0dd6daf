"""A training with weights is the hand-written loop's, whatever the batches; weights of 1 are a plain training."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError
from ost_hf.models import ModelConfig, load_model
from ost_hf.training.config import OSTConfig
from ost_hf.training.trainer import OSTTrainer
from ost_hf.training.trl import OSTSFTConfig, OSTSFTTrainer
from ost_hf.training.weighted import refuse_other_losses

RATE = 0.5
WEIGHTS = [1.0, 0.25, 0.0, 0.6, 0.9, 0.05]
ROWS = [{"prompt": f"question {n} ", "completion": "answer " * (n + 1)} for n in range(len(WEIGHTS))]
IDS = [f"row {n}" for n in range(len(WEIGHTS))]


def pool() -> datasets.Dataset:
    return datasets.Dataset.from_list([{**row, "example_id": name} for row, name in zip(ROWS, IDS, strict=True)])


def selection(weights: list[float] | None = WEIGHTS) -> pa.Table:
    count = len(IDS)
    columns = {"example_id": IDS, "row": list(range(count)), "rank": list(range(1, count + 1)), "kept": [True] * count}
    return pa.table(columns if weights is None else {**columns, "ost_weight": weights})


def settings(folder: Path, batch: int, accumulation: int, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation,
        "max_steps": 1, "learning_rate": RATE, "lr_scheduler_type": "constant", "optim": "sgd", "max_grad_norm": 0.0,
        "save_strategy": "no", "use_cpu": True, "bf16": False, "report_to": [], **more,
    }  # fmt: skip


def by_hand(model: Any, rows: list[dict[str, torch.Tensor]], weights: list[float]) -> dict[str, torch.Tensor]:
    """The weights after one step of SGD on sum_i w_i sum_t l_it / sum_i w_i T_i, a row at a time."""
    model = copy.deepcopy(model)
    total = torch.zeros(())
    count = 0.0
    for row, weight in zip(rows, weights, strict=True):
        inputs = {key: value if key.startswith(("pixel", "image")) else value[None] for key, value in row.items()}
        labels = inputs.pop("labels")
        loss = cross_entropy(model(**inputs).logits[0, :-1], labels[0, 1:], reduction="none", ignore_index=-100)
        total = total + weight * loss.sum()
        count += weight * int((labels[0, 1:] != -100).sum())
    (total / count).backward()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.grad is not None:
                weight -= RATE * weight.grad
    return model.state_dict()


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    return max(float((after[name] - before[name]).abs().max()) for name in before)


@pytest.fixture
def model(text_path: str) -> Any:
    return load_model(ModelConfig(text_path))


@pytest.fixture(scope="module")
def tokenizer(text_path: str) -> Any:
    return transformers.AutoTokenizer.from_pretrained(text_path)


def trained(model: Any, args: OSTConfig, tokenizer: Any, table: pa.Table, rows: Any = None) -> OSTTrainer:
    trainer = OSTTrainer(
        model, args, train_dataset=pool() if rows is None else rows, processing_class=tokenizer, selection=table
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize(("batch", "accumulation"), [(6, 1), (3, 2), (1, 6), (4, 2)])
def test_step_is_that_of_the_hand_written_loop(model, tokenizer, tmp_path: Path, batch: int, accumulation: int) -> None:
    before = copy.deepcopy(model)
    args = OSTConfig(**settings(tmp_path, batch, accumulation, weighted_loss=True, sampling="ranked"))
    trainer = trained(model, args, tokenizer, selection())
    rows = [trainer.train_dataset.dataset[n] for n in range(len(IDS))]
    expected = by_hand(before, rows, WEIGHTS)
    change = moved(before.state_dict(), expected)
    assert change > 1e-2
    assert moved(expected, model.state_dict()) < 1e-5 * change
    logged = trainer.state.log_history[-1]["train_loss"]
    assert logged == pytest.approx(mean_loss(before, rows, WEIGHTS), rel=1e-5)


def mean_loss(model: Any, rows: list[dict[str, torch.Tensor]], weights: list[float]) -> float:
    losses, counts = [], []
    for row in rows:
        labels = row["labels"][1:]
        with torch.no_grad():
            logits = model(input_ids=row["input_ids"][None]).logits[0, :-1]
        losses.append(float(cross_entropy(logits, labels, reduction="sum")))
        counts.append(int((labels != -100).sum()))
    return sum(map(float.__mul__, weights, losses)) / sum(w * c for w, c in zip(weights, counts, strict=True))


@pytest.mark.parametrize(("batch", "accumulation"), [(6, 1), (2, 3)])
@pytest.mark.parametrize("trl", [False, True])
def test_weights_of_one_are_a_plain_training(model, tokenizer, tmp_path: Path, batch, accumulation, trl: bool) -> None:
    plain = copy.deepcopy(model)
    made = settings(tmp_path, batch, accumulation)
    trainer, config = (OSTSFTTrainer, OSTSFTConfig) if trl else (OSTTrainer, OSTConfig)
    for one, weighted in ((model, True), (plain, False)):
        trainer(
            one, config(**made, weighted_loss=weighted), train_dataset=pool(), processing_class=tokenizer,
            selection=selection([1.0] * len(IDS)),
        ).train()  # fmt: skip
    assert moved(plain.state_dict(), model.state_dict()) < 1e-6


@pytest.mark.parametrize(("batch", "accumulation"), [(6, 1), (2, 3)])
def test_sft_trainer_takes_the_same_step(model, tokenizer, tmp_path: Path, batch: int, accumulation: int) -> None:
    before = copy.deepcopy(model)
    args = OSTSFTConfig(**settings(tmp_path, batch, accumulation, weighted_loss=True), eval_strategy="steps")
    trainer = OSTSFTTrainer(
        model, args, train_dataset=pool(), eval_dataset=pool().select([0, 1]), processing_class=tokenizer,
        selection=selection(),
    )  # fmt: skip
    trainer.train()
    assert trainer.train_dataset["ost_weight"] == WEIGHTS
    rows = [collated(trainer, row) for row in trainer.train_dataset]
    expected = by_hand(before, rows, WEIGHTS)
    change = moved(before.state_dict(), expected)
    assert change > 1e-2
    assert moved(expected, model.state_dict()) < 1e-5 * change
    # Of an evaluation, rows have no weights.
    evaluated = next(entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry)
    assert evaluated == pytest.approx(mean_loss(model, rows[:2], [1.0, 1.0]), rel=1e-4)


def collated(trainer: OSTSFTTrainer, row: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A row as the model gets it; of some releases of TRL only the collator makes labels."""
    batch = trainer.data_collator([row])
    return {name: batch[name][0] for name in ("input_ids", "labels")}


def test_vision_language_model_whose_loss_counts_no_tokens(
    vlm_path: str, processor, pool_dataset: datasets.Dataset, tmp_path: Path
) -> None:
    """``Trainer`` would take the mean of each micro-batch by itself."""
    model = load_model(ModelConfig(vlm_path))
    before = copy.deepcopy(model)
    assert model.accepts_loss_kwargs is False
    args = OSTConfig(
        **settings(tmp_path, 2, 3, weighted_loss=True, sampling="ranked", eval_strategy="steps", eval_steps=1)
    )
    rows = pool_dataset.select(range(len(IDS)))
    table = selection().set_column(0, "example_id", pa.array(Rows(rows).example_ids))
    trainer = OSTTrainer(
        model, args, train_dataset=rows, eval_dataset=rows.select([0, 1]), processing_class=processor, selection=table
    )
    trainer.train()
    encoded = [trainer.train_dataset.dataset[n] for n in range(len(IDS))]
    expected = by_hand(before, encoded, WEIGHTS)
    assert moved(expected, model.state_dict()) < 1e-4 * moved(before.state_dict(), expected)


def test_step_without_any_weight_changes_nothing(model, tokenizer, tmp_path: Path) -> None:
    """Three steps: of the second the rows weigh nothing."""
    weights = [1.0, 0.5, 0.0, 0.0, 0.7, 0.2]
    seen: list[dict[str, torch.Tensor]] = []

    class Watched(transformers.TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            seen.append(copy.deepcopy(model.state_dict()))

    args = OSTConfig(**settings(tmp_path, 2, 1, weighted_loss=True, sampling="ranked") | {"max_steps": 3})
    OSTTrainer(
        model, args, train_dataset=pool(), processing_class=tokenizer, selection=selection(weights),
        callbacks=[Watched()],
    ).train()  # fmt: skip
    assert moved(seen[0], seen[1]) == 0
    assert moved(seen[1], seen[2]) > 1e-3
    assert all(torch.isfinite(weight).all() for weight in seen[2].values())


@pytest.mark.parametrize("kind", ["tokens", "stream", "hugging face stream"])
def test_tokenised_rows_and_streams_bring_their_weights(model, tokenizer, tmp_path: Path, kind: str) -> None:
    before = copy.deepcopy(model)
    encoded = [
        {"input_ids": ids, "labels": [-100, *ids[1:]], "attention_mask": [1] * len(ids), "example_id": name}
        for name, ids in ((name, tokenizer("word " * (n + 2))["input_ids"]) for n, name in enumerate(IDS))
    ]
    rows: Any = datasets.Dataset.from_list(encoded)

    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield from encoded

    if kind == "stream":
        rows = Stream()
    elif kind == "hugging face stream":
        rows = rows.to_iterable_dataset()
    args = OSTConfig(**settings(tmp_path, 2, 3, weighted_loss=True))
    OSTTrainer(
        model, args, train_dataset=rows, selection=selection(),
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
    ).train()  # fmt: skip
    tensors = [{key: torch.tensor(row[key]) for key in ("input_ids", "labels")} for row in encoded]
    expected = by_hand(before, tensors, WEIGHTS)
    change = moved(before.state_dict(), expected)
    assert change > 1e-2
    assert moved(expected, model.state_dict()) < 1e-5 * change


def test_mixture_of_experts_keeps_its_balancing_loss(tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.Qwen3MoeConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, moe_intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=4, num_experts_per_tok=2,
        output_router_logits=True, router_aux_loss_coef=0.5, max_position_embeddings=512,
    )  # fmt: skip
    model = transformers.Qwen3MoeForCausalLM(config)
    plain = copy.deepcopy(model)
    for one, weighted in ((model, True), (plain, False)):
        args = OSTConfig(**settings(tmp_path, 6, 1, weighted_loss=weighted))
        trained(one, args, tokenizer, selection([1.0] * len(IDS)))
    assert moved(plain.state_dict(), model.state_dict()) < 1e-6


@pytest.mark.parametrize(
    ("trainer", "more", "message"),
    [
        (OSTTrainer, {"label_smoothing_factor": 0.1}, "weighted_loss does not go with label_smoothing_factor"),
        (OSTSFTTrainer, {"packing": True}, "weighted_loss does not go with packing"),
        (OSTSFTTrainer, {"padding_free": True, "max_length": None}, "weighted_loss does not go with padding_free"),
        (OSTSFTTrainer, {"loss_type": "dft"}, "weighted_loss does not go with loss_type 'dft'"),
    ],
)
def test_what_is_another_loss_or_mixes_rows_is_refused(
    model, tokenizer, tmp_path: Path, trainer, more, message
) -> None:
    config = OSTConfig if trainer is OSTTrainer else OSTSFTConfig
    with pytest.raises(ConfigError, match=message):
        trainer(
            model, config(**settings(tmp_path, 2, 1, weighted_loss=True, **more)), train_dataset=pool(),
            processing_class=tokenizer, selection=selection(),
        )  # fmt: skip


def test_liger_is_refused(model, tokenizer, tmp_path: Path) -> None:
    """Where liger-kernel is not installed, ``Trainer`` itself refuses it before."""
    args = OSTConfig(**settings(tmp_path, 2, 1))
    trainer = OSTTrainer(model, args, train_dataset=pool(), processing_class=tokenizer, selection=selection())
    trainer.args.use_liger_kernel = True
    with pytest.raises(ConfigError, match="weighted_loss does not go with use_liger_kernel"):
        refuse_other_losses(trainer)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (None, "needs the column ost_weight, and the selection has none"),
        ([0.1, 0.2, 1.5, 0.3, 0.4, 0.5], r"must hold a number in \[0, 1\] for each kept row"),
        ([0.1, 0.2, None, 0.3, 0.4, 0.5], "must hold a number"),
        ([0.1, 0.2, float("nan"), 0.3, 0.4, 0.5], "must hold a number"),
        ([0.0] * 6, "is 0 for every kept row"),
    ],
)
def test_selection_without_usable_weights_is_refused(model, tokenizer, tmp_path: Path, weights, message: str) -> None:
    args = OSTConfig(**settings(tmp_path, 2, 1, weighted_loss=True))
    with pytest.raises(DataError, match=message):
        OSTTrainer(model, args, train_dataset=pool(), processing_class=tokenizer, selection=selection(weights))


def test_weights_that_are_not_used_are_said(model, tokenizer, tmp_path: Path, caplog) -> None:
    OSTTrainer(
        model, OSTConfig(**settings(tmp_path, 2, 1)), train_dataset=pool(), processing_class=tokenizer,
        selection=selection(),
    )  # fmt: skip
    assert "this training does not use them: set weighted_loss" in caplog.text


def test_loss_that_does_not_call_the_model_is_an_error(model, tokenizer, tmp_path: Path) -> None:
    class Own(OSTTrainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            return super().compute_loss(
                lambda **_: {"loss": torch.zeros((), requires_grad=True)}, inputs, *args, **kwargs
            )

    args = OSTConfig(**settings(tmp_path, 2, 1, weighted_loss=True))
    trainer = Own(model, args, train_dataset=pool(), processing_class=tokenizer, selection=selection())
    with pytest.raises(ConfigError, match="has logits"):
        trainer.train()
