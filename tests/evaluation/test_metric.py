"""The exact-match metric loads from its folder, and reads what a ``Trainer`` hands over."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import evaluate
import numpy as np
import pytest

from ost_hf.errors import ConfigError
from ost_hf.evaluation.metric import IGNORE_INDEX, exact_match_path, load_exact_match, make_compute_metrics

TEXTS = ["left 3, right 4. 3 + 4 = 7. answer: 7", "answer: 9"]


def padded(rows: list[list[int]], fill: int, width: int = 0) -> np.ndarray:
    width = max(width, *map(len, rows))
    return np.array([row + [fill] * (width - len(row)) for row in rows])


def answered(processor: Any, texts: list[str]) -> list[list[int]]:
    return [processor.tokenizer(text + "<|im_end|>")["input_ids"] for text in texts]


def teacher_forced(processor: Any, texts: list[str], predicted: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Labels behind a prompt of five tokens, and predictions that stand one place before them, noise elsewhere."""
    space, letter = processor.tokenizer(" L")["input_ids"]
    labels, predictions = [], []
    for answer, guess in zip(answered(processor, texts), answered(processor, predicted), strict=True):
        assert len(answer) == len(guess)
        labels.append([IGNORE_INDEX] * 5 + answer)
        predictions.append([space] * 4 + guess + [letter])
    return padded(predictions, letter), padded(labels, IGNORE_INDEX)


def compute(processor: Any, predictions: Any, labels: np.ndarray, **settings: Any) -> float:
    evaluated = SimpleNamespace(predictions=predictions, label_ids=labels)
    return make_compute_metrics(processor, **settings)(evaluated)["exact_match"]


def test_module_loads_from_its_folder_without_a_network() -> None:
    assert (Path(exact_match_path()) / "exact_match.py").is_file()
    result = evaluate.load(exact_match_path()).compute(predictions=TEXTS, references=["7", "8"])
    assert result == {"exact_match": 0.5, "matches": [True, False]}


@pytest.mark.parametrize(("match", "share"), [("math", 1.0), ("text", 0.5)])
def test_module_compares_as_asked(match: str, share: float) -> None:
    result = load_exact_match().compute(predictions=["1/2", "7"], references=["0.5", "7"], match=match)
    assert result["exact_match"] == share


def test_unknown_comparison_is_refused() -> None:
    with pytest.raises(ConfigError, match="match must be one of 'math', 'text', got 'maths'"):
        load_exact_match().compute(predictions=["7"], references=["7"], match="maths")


def test_generated_ids_are_decoded_without_padding_and_special_tokens(processor: Any) -> None:
    labels = padded(answered(processor, TEXTS), IGNORE_INDEX)
    generated = padded(answered(processor, ["3 + 4 is answer: 7", "answer: 8"]), processor.tokenizer.pad_token_id, 60)
    assert compute(processor, generated, labels) == 0.5
    generated[generated == processor.tokenizer.pad_token_id] = IGNORE_INDEX
    assert compute(processor, generated, labels) == 0.5


def test_generated_ids_of_the_labels_width_are_read_as_generated_when_told_so(processor: Any) -> None:
    labels = padded(answered(processor, ["answer: 7", "answer: 9"]), processor.tokenizer.pad_token_id, 60)
    generated = padded(answered(processor, ["so the answer: 7", "answer: 8"]), processor.tokenizer.pad_token_id, 60)
    assert compute(processor, generated, labels, generated=True) == 0.5


@pytest.mark.parametrize(("guesses", "share"), [(TEXTS, 1.0), ([TEXTS[0], "answer: 8"], 0.5)])
def test_argmax_is_shifted_to_the_token_it_predicts(processor: Any, guesses: list[str], share: float) -> None:
    assert compute(processor, *teacher_forced(processor, TEXTS, guesses)) == share


@pytest.mark.parametrize("wrapped", [False, True])
def test_logits_count_as_their_argmax(processor: Any, wrapped: bool) -> None:
    predictions, labels = teacher_forced(processor, TEXTS, [TEXTS[0], "answer: 8"])
    logits = np.eye(len(processor.tokenizer))[predictions]
    assert compute(processor, (logits, np.zeros(2)) if wrapped else logits, labels) == 0.5


def test_text_can_be_asked_for(processor: Any) -> None:
    labels = padded(answered(processor, ["1/2"]), IGNORE_INDEX)
    generated = padded(answered(processor, ["0.5"]), IGNORE_INDEX, 40)
    assert compute(processor, generated, labels) == 1.0
    assert compute(processor, generated, labels, match="text") == 0.0


def test_tokenizer_and_processor_give_the_same(processor: Any) -> None:
    forced = teacher_forced(processor, TEXTS, [TEXTS[0], "answer: 8"])
    assert compute(processor.tokenizer, *forced) == compute(processor, *forced) == 0.5


@pytest.mark.parametrize(
    ("special", "text", "share"),
    [
        (["[THINK]", "[/THINK]"], "[THINK]answer: 8[/THINK]7<|im_end|>", 1.0),
        (["[THINK]", "[/THINK]"], "[THINK]answer: 7<|im_end|>", 0.0),
        (
            ["<|channel|>", "<|message|>"],
            "<|channel|>analysis<|message|>answer: 8<|im_end|><|channel|>final<|message|>7<|im_end|>",
            1.0,
        ),
    ],
)
def test_marks_of_thoughts_that_are_special_tokens_are_left_to_find_the_answer(
    processor: Any, special: list[str], text: str, share: float
) -> None:
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    labels = padded(answered(processor, ["answer: 7"]), IGNORE_INDEX, 60)
    generated = padded([tokenizer(text)["input_ids"]], tokenizer.pad_token_id, 61)
    assert compute(tokenizer, generated, labels, generated=True) == share
