"""A training leaves out the turns that a selection masks; the other turns and the prompts stay."""

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

from ost_hf.errors import ConfigError, DataError
from ost_hf.functional.turns import split_turns
from ost_hf.models import ModelConfig, load_model
from ost_hf.training.config import OSTConfig
from ost_hf.training.trainer import OSTTrainer
from ost_hf.training.trl import OSTSFTConfig, OSTSFTTrainer

RATE = 0.5
IDS = ["a", "b", "c"]
MASKED = [[1], [], [0, 2]]
TEMPLATE = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' -}}{%- if message.role == 'assistant' -%}"
    "{%- generation -%}{{- message.content + '<|im_end|>' -}}{%- endgeneration -%}{%- else -%}"
    "{{- message.content + '<|im_end|>' -}}{%- endif -%}{{- '\\n' -}}{%- endfor -%}"
)


def pool() -> datasets.Dataset:
    def chat(name: str) -> dict[str, Any]:
        turns = [
            [{"role": "user", "content": f"say {n} {name}"}, {"role": "assistant", "content": f"it is {name} {n}"}]
            for n in range(3)
        ]
        return {"messages": [message for turn in turns for message in turn], "example_id": name}

    return datasets.Dataset.from_list([chat(name) for name in IDS])


def selection(masked: list[list[int]] = MASKED, turns: int | None = 3, **more: Any) -> pa.Table:
    table = {"example_id": IDS, "row": [0, 1, 2], "kept": [True] * 3, "turns": pa.array([turns] * 3, pa.int32())}
    return pa.table({**table, "masked_turns": pa.array(masked, pa.list_(pa.int32())), **more})


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "per_device_train_batch_size": 3, "max_steps": 1, "learning_rate": RATE,
        "lr_scheduler_type": "constant", "optim": "sgd", "max_grad_norm": 0.0, "save_strategy": "no", "use_cpu": True,
        "bf16": False, "report_to": [], **more,
    }  # fmt: skip


def by_hand(model: Any, rows: list[dict[str, Any]], weights: list[float]) -> dict[str, torch.Tensor]:
    """The weights after one step of SGD on all turns but the masked ones; rows have the labels of all turns."""
    model = copy.deepcopy(model)
    total, count = torch.zeros(()), 0.0
    for row, masked, weight in zip(rows, MASKED, weights, strict=True):
        ids, labels = (torch.as_tensor(row[name])[None] for name in ("input_ids", "labels"))
        loss_T = cross_entropy(model(input_ids=ids).logits[0, :-1], labels[0, 1:], reduction="none", ignore_index=-100)
        for turn, of_turn in enumerate(split_turns(labels[0])):
            if turn not in masked:
                chosen = of_turn[1:] != -100
                total, count = total + weight * loss_T[chosen].sum(), count + weight * int(chosen.sum())
    (total / count).backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= RATE * parameter.grad
    return model.state_dict()


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> float:
    return max(float((after[name] - before[name]).abs().max()) for name in before)


@pytest.fixture
def model(text_path: str) -> Any:
    return load_model(ModelConfig(text_path))


@pytest.fixture
def tokenizer(text_path: str) -> Any:
    made = transformers.AutoTokenizer.from_pretrained(text_path)
    made.chat_template = TEMPLATE
    return made


def collated(trainer: Any, number: int) -> dict[str, torch.Tensor]:
    """A row as the model gets it; of some releases of TRL only the collator makes labels."""
    row = {name: value for name, value in trainer.train_dataset[number].items() if name != "ost_weight"}
    batch = trainer.data_collator([row])
    return {name: batch[name][0] for name in ("input_ids", "labels")}


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.3, 0.9, 0.5]])
@pytest.mark.parametrize("trl", [False, True])
def test_step_is_on_the_other_turns_alone(model, tokenizer, tmp_path: Path, trl: bool, weights: list[float]) -> None:
    before = copy.deepcopy(model)
    weighted = weights != [1.0] * 3
    table = selection(ost_weight=weights) if weighted else selection()
    kind, made = (OSTSFTTrainer, OSTSFTConfig) if trl else (OSTTrainer, OSTConfig)
    more = {"assistant_only_loss": True} if trl else {}
    given = {"train_dataset": pool(), "processing_class": tokenizer}
    args = made(**settings(tmp_path, weighted_loss=weighted, **more))
    trainer = kind(model, args, selection=table, **given)
    trainer.train()
    all_turns = kind(copy.deepcopy(before), made(**settings(tmp_path, **more)), selection=selection([[]] * 3), **given)
    all_turns.select()
    rows = [collated(all_turns, n) for n in range(3)]
    assert [len(split_turns(torch.as_tensor(row["labels"]))) for row in rows] == [3, 3, 3]
    seen = [collated(trainer, n) for n in range(3)]
    assert [len(split_turns(torch.as_tensor(row["labels"]))) for row in seen] == [2, 3, 1]
    assert [list(row["input_ids"]) for row in seen] == [list(row["input_ids"]) for row in rows]
    expected = by_hand(before, rows, weights)
    change = moved(before.state_dict(), expected)
    assert change > 1e-2
    assert moved(expected, model.state_dict()) < 1e-5 * change


@pytest.mark.parametrize("kind", ["tokens", "stream"])
def test_tokenised_rows_and_streams_are_masked(model, tokenizer, tmp_path: Path, kind: str) -> None:
    labels = [-100, 5, 6, -100, 7, -100, 8, 9]
    rows: Any = datasets.Dataset.from_list(
        [{"input_ids": list(range(8)), "labels": labels, "example_id": n} for n in IDS]
    )
    rows = rows if kind == "tokens" else rows.to_iterable_dataset()
    trainer = OSTTrainer(
        model, OSTConfig(**settings(tmp_path)), train_dataset=rows, selection=selection(),
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
    )  # fmt: skip
    trainer.train()
    found = [row["labels"] for row in trainer.train_dataset] if kind == "stream" else None
    found = found or [trainer.train_dataset[n]["labels"] for n in range(3)]
    assert found == [[-100, 5, 6, -100, -100, -100, 8, 9], labels, [-100, -100, -100, -100, 7, -100, -100, -100]]


def test_row_with_other_turns_than_were_scored_is_an_error(model, tokenizer, tmp_path: Path) -> None:
    args = OSTConfig(**settings(tmp_path))
    given = {"train_dataset": pool(), "processing_class": tokenizer}
    for table in (selection(turns=4), selection([[5], [], []], turns=None)):
        trainer = OSTTrainer(copy.deepcopy(model), args, selection=table, **given)
        with pytest.raises(DataError, match=r"has 3 turns here, and .* where turns were scored"):
            trainer.train()


@pytest.mark.parametrize(
    "more", [{}, {"assistant_only_loss": True, "packing": True}, {"assistant_only_loss": True, "stream": True}]
)
def test_sft_trainer_refuses_what_has_no_turns(model, tokenizer, tmp_path: Path, more: dict[str, Any]) -> None:
    rows: Any = pool().to_iterable_dataset() if more.pop("stream", False) else pool()
    with pytest.raises(ConfigError, match="the selection masks turns: OSTSFTTrainer can leave turns out where"):
        OSTSFTTrainer(
            model, OSTSFTConfig(**settings(tmp_path, **more)), train_dataset=rows, processing_class=tokenizer,
            selection=selection(),
        )  # fmt: skip
