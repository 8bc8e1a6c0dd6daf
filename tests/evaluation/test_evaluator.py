"""Evaluation generates for every row it can, says of the others why not, and leaves the model as it was."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
import transformers

from ost_hf.data.config import EncodingConfig
from ost_hf.data.encoding import Encoder
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError
from ost_hf.evaluation.answers import answers_match, extract_answer
from ost_hf.evaluation.config import EvaluationConfig
from ost_hf.evaluation.evaluator import evaluate_model
from ost_hf.files import write_json

Evaluated = tuple[dict[str, Any], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def model(vlm_path: str) -> Any:
    return transformers.AutoModelForImageTextToText.from_pretrained(vlm_path)


def evaluate(model: Any, processor: Any, dataset: datasets.Dataset, **settings: Any) -> Evaluated:
    config = EvaluationConfig(**{"path": "in memory", "max_new_tokens": 40, **settings})
    return evaluate_model(model, Encoder(processor, EncodingConfig()), Rows(dataset, config), config)


@pytest.fixture(scope="module")
def evaluated(model: Any, processor: Any, test_dataset: datasets.Dataset) -> Evaluated:
    return evaluate(model, processor, test_dataset, reference_column="solution", group_by="operation")


def test_metrics_are_the_shares_of_matching_records(evaluated: Evaluated, test_dataset: datasets.Dataset) -> None:
    metrics, records = evaluated
    matches = [answers_match(extract_answer(record["prediction"]), record["reference"]) for record in records]
    assert [record["match"] for record in records] == matches
    assert metrics["exact_match"] == sum(matches) / 20
    assert 0 < sum(matches) < 20
    assert (metrics["rows"], metrics["not_evaluated"]) == (20, 0)


def test_records_stand_in_the_order_of_the_rows(evaluated: Evaluated, test_dataset: datasets.Dataset) -> None:
    records = evaluated[1]
    assert [record["row"] for record in records] == list(range(20))
    assert [record["example_id"] for record in records] == Rows(test_dataset).example_ids
    assert [record["reference"] for record in records] == list(test_dataset["solution"])


def test_predictions_are_the_answer_without_prompt_and_special_tokens(evaluated: Evaluated) -> None:
    for record in evaluated[1]:
        assert record["prediction"].startswith("left ")
        assert "<|" not in record["prediction"]


def test_groups_are_the_shares_of_each_value(evaluated: Evaluated, test_dataset: datasets.Dataset) -> None:
    metrics, records = evaluated
    operations = list(test_dataset["operation"])
    right = Counter(operations[record["row"]] for record in records if record["match"])
    assert metrics["by_group"] == {name: right[name] / n for name, n in sorted(Counter(operations).items())}


def test_last_turn_is_the_reference_without_a_column(
    evaluated: Evaluated, model: Any, processor: Any, test_dataset: datasets.Dataset
) -> None:
    metrics, records = evaluate(model, processor, test_dataset.select(range(4)))
    assert [record["reference"] for record in records] == list(test_dataset["solution"])[:4]
    assert [record["match"] for record in records] == [record["match"] for record in evaluated[1][:4]]
    assert "by_group" not in metrics


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batch_size_does_not_change_predictions(
    evaluated: Evaluated, model: Any, processor: Any, test_dataset: datasets.Dataset, batch_size: int
) -> None:
    records = evaluate(model, processor, test_dataset.select(range(7)), batch_size=batch_size)[1]
    assert [record["prediction"] for record in records] == [record["prediction"] for record in evaluated[1][:7]]


def test_text_rows_beside_image_rows_do_not_change_predictions(
    evaluated: Evaluated, model: Any, processor: Any, test_dataset: datasets.Dataset
) -> None:
    rows = [{"image": row["image"], "question": row["question"], "answer": row["answer"]} for row in test_dataset]
    mixed = datasets.Dataset.from_list([rows[0], {**rows[1], "image": None}, rows[2]])
    records = evaluate(model, processor, mixed, batch_size=3)[1]
    assert [record["status"] for record in records] == ["ok"] * 3
    for row in (0, 2):
        assert records[row]["prediction"] == evaluated[1][row]["prediction"]


def test_rows_that_cannot_be_evaluated_are_counted_and_leave_the_others_alone(
    evaluated: Evaluated, model: Any, processor: Any, test_dataset: datasets.Dataset
) -> None:
    damaged = [
        {"bytes": b"damaged", "path": None},
        *test_dataset.cast_column("image", datasets.Image(decode=False))["image"],
    ]
    questions, answers = list(test_dataset["question"]), list(test_dataset["answer"])
    dataset = datasets.Dataset.from_dict(
        {
            "image": [damaged[1], damaged[0], damaged[3], damaged[4]],
            "question": questions[:4],
            "answer": [answers[0], answers[1], None, answers[3]],
            "kind": ["a", "b", "b", "a"],
        }
    )
    metrics, records = evaluate(model, processor, dataset, batch_size=2, group_by="kind")
    assert [record["status"] for record in records] == ["ok", "bad_image", "bad_row", "ok"]
    assert all(record["detail"] for record in records[1:3])
    assert not any("prediction" in record or "match" in record for record in records[1:3])
    assert [records[row]["prediction"] for row in (0, 3)] == [evaluated[1][row]["prediction"] for row in (0, 3)]
    right = sum(evaluated[1][row]["match"] for row in (0, 3))
    assert metrics == {"exact_match": right / 2, "rows": 2, "not_evaluated": 2, "by_group": {"a": right / 2}}


def test_test_set_without_a_usable_row_is_refused(model: Any, processor: Any) -> None:
    dataset = datasets.Dataset.from_list([{"messages": [{"role": "user", "content": "sum?"}]}] * 2)
    with pytest.raises(
        DataError, match="none of the 2 test rows can be evaluated; the first: the row does not end with"
    ):
        evaluate(model, processor, dataset)


@pytest.mark.parametrize("option", ["reference_column", "group_by"])
def test_missing_column_is_named_with_those_there_are(
    model: Any, processor: Any, test_dataset: datasets.Dataset, option: str
) -> None:
    with pytest.raises(
        DataError, match=rf"evaluation\.{option}: there is no column 'nope'; there are: image, left_scan"
    ):
        evaluate(model, processor, test_dataset, **{option: "nope"})


@pytest.mark.parametrize("training", [True, False])
def test_model_generates_in_evaluation_mode_and_gets_its_own_back(
    model: Any, processor: Any, test_dataset: datasets.Dataset, training: bool
) -> None:
    modes: set[bool] = set()
    hook = model.register_forward_pre_hook(lambda module, inputs: modes.add(module.training))
    model.train(training)
    evaluate(model, processor, test_dataset.select([0]), max_new_tokens=2)
    hook.remove()
    assert modes == {False}
    assert model.training is training
    model.eval()


@pytest.mark.parametrize(("match", "share"), [("math", 1.0), ("text", 0.0)])
def test_answers_are_compared_as_asked(
    evaluated: Evaluated, model: Any, processor: Any, test_dataset: datasets.Dataset, match: str, share: float
) -> None:
    right = [record["row"] for record in evaluated[1] if record["match"]][:2]
    dataset = test_dataset.select(right).map(lambda row: {"solution": f"{row['solution']}.0"})
    metrics, _ = evaluate(model, processor, dataset, reference_column="solution", match=match)
    assert metrics["exact_match"] == share


def test_whole_numbers_of_a_column_with_an_empty_cell_are_references_as_they_were_written(
    model: Any, processor: Any, test_dataset: datasets.Dataset, tmp_path: Path
) -> None:
    (tmp_path / "answers.csv").write_text("right,n\n7,1\n,2\n12,3\n")
    column = datasets.load_dataset("csv", data_files=str(tmp_path / "answers.csv"), split="train")["right"][:]
    assert column == [7.0, None, 12.0]
    dataset = test_dataset.select(range(3)).add_column("right", column)
    _, records = evaluate(model, processor, dataset, reference_column="right", match="text", max_new_tokens=2)
    assert [(record["status"], record.get("reference")) for record in records] == [
        ("ok", "7"), ("no_labels", None), ("ok", "12")
    ]  # fmt: skip


def test_a_thought_that_the_template_opens_and_the_model_does_not_finish_is_no_answer(
    evaluated: Evaluated, model: Any, processor: Any, test_dataset: datasets.Dataset
) -> None:
    right = [record["row"] for record in evaluated[1] if record["match"]][:2]
    thinking = copy.deepcopy(processor)
    thinking.chat_template += "{%- if add_generation_prompt -%}{{- '<think>\\n' -}}{%- endif -%}"
    metrics, records = evaluate(model, thinking, test_dataset.select(right), reference_column="solution")
    assert [record["prediction"][:7] for record in records] == ["<think>"] * 2
    assert not any("</think>" in record["prediction"] for record in records)
    assert metrics["exact_match"] == 0


def test_a_reference_is_what_follows_its_thought(model: Any, processor: Any, test_dataset: datasets.Dataset) -> None:
    answers = ["<think>5? answer: 5</think>\nThe answer is 7.", "<think>The answer is 7, or"]
    dataset = test_dataset.select(range(2)).remove_columns("answer").add_column("answer", answers)
    _, records = evaluate(model, processor, dataset, max_new_tokens=2)
    assert [(record["status"], record.get("reference")) for record in records] == [("ok", "7"), ("no_labels", None)]


def test_an_empty_reference_is_no_wrong_answer(model: Any, processor: Any, test_dataset: datasets.Dataset) -> None:
    dataset = test_dataset.select(range(3)).add_column("right", ["7", " ", ""])
    metrics, records = evaluate(model, processor, dataset, reference_column="right", max_new_tokens=2)
    assert (metrics["rows"], metrics["not_evaluated"]) == (1, 2)
    assert [record["detail"] for record in records[1:]] == ["right is empty"] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"match": "maths"}, r"evaluation\.match must be one of 'math', 'text'"),
        ({"batch_size": 0}, r"evaluation\.batch_size must be an integer >= 1, got 0"),
        ({"max_new_tokens": 0}, r"evaluation\.max_new_tokens must be an integer >= 1, got 0"),
        ({"path": ""}, "a dataset needs a path"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvaluationConfig(**{"path": "x", **settings})


def test_metrics_are_written_as_json(evaluated: Evaluated, tmp_path: Path) -> None:
    write_json(tmp_path / "run" / "metrics.json", evaluated[0])
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == evaluated[0]
