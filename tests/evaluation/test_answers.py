"""The final answer is found where it is announced, and compared as mathematics or as text."""

from __future__ import annotations

import threading

import pytest

from ost_hf.errors import ConfigError
from ost_hf.evaluation.answers import answers_match, extract_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{7}.", "7"),
        (r"\boxed{\frac{1}{2}} and that is it", r"\frac{1}{2}"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"\boxed{\text{left} \cup \{1\}}", r"\text{left} \cup \{1\}"),
        ("2 + 2 = 4\n#### 4", "4"),
        ("#### 4\n#### 5", "5"),
        ("####5.", "5"),
        ("left 3, right 4. 3 + 4 = 7. answer: 7", "7"),
        ("Answer: **7**", "7"),
        ("Answer: **7**.", "7"),
        ("**Answer: 7.**", "7"),
        ("answer = 7", "7"),
        ("Answer:\n7", "7"),
        ("The answer is 7.", "7"),
        ("The final answer is: 7", "7"),
        ("the answer is 6. No, the answer is 7\nThanks!", "7"),
        ("thinking\n  7  \n\n", "7"),
        ("7", "7"),
        ("Paris.", "Paris"),
    ],
)
def test_answer_is_found_where_it_is_announced(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{1}" + "\n#### 2\nanswer: 3", "1"),
        ("#### 2\nanswer: 3", "2"),
        ("answer: 3\n4", "3"),
        (r"\boxed{1 is not closed" + "\n#### 2", "2"),
    ],
)
def test_boxes_win_over_marks_over_words_over_the_last_line(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize("text", ["", " \n\t\n"])
def test_empty_text_has_an_empty_answer(text: str) -> None:
    assert extract_answer(text) == ""


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("7\n#### ", "####"),
        ("The result is 7, and the answer: ", "The result is 7, and the answer"),
        ("We seek the answer.\n7", "7"),
        ("That answer isn't known\n7", "7"),
        ("The answers: many\n7", "7"),
    ],
)
def test_mark_without_an_answer_is_no_mark(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("7", "7"),
        ("1/2", "0.5"),
        (r"\frac{1}{2}", "1/2"),
        ("2^3", "8"),
        ("12.0", "12"),
        ("1,000", "1000"),
        ("$7$", "7"),
        ("x*2", "2x"),
        ("x = 5", "5"),
        ("(1,2)", "(1, 2)"),
        ("Left", "left"),
        (r"\sqrt{4}", "2"),
    ],
)
def test_equal_mathematics_matches(prediction: str, reference: str) -> None:
    assert answers_match(prediction, reference)
    assert answers_match(reference, prediction)


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("7", "8"),
        ("-3", "3"),
        ("1/2", "0.4"),
        ("0.333", "1/3"),
        ("yes", "no"),
        ("A", "B"),
        ("77", "7"),
        ("7", "7 or 8"),
    ],
)
@pytest.mark.parametrize("how", ["math", "text"])
def test_different_answers_do_not_match(prediction: str, reference: str, how: str) -> None:
    assert not answers_match(prediction, reference, how)
    assert not answers_match(reference, prediction, how)


@pytest.mark.parametrize("how", ["math", "text"])
@pytest.mark.parametrize(("prediction", "reference"), [("", ""), ("", "7"), ("7", ""), (" ", "\n")])
def test_nothing_matches_no_answer(prediction: str, reference: str, how: str) -> None:
    assert not answers_match(prediction, reference, how)


@pytest.mark.parametrize(
    ("prediction", "reference", "equal"),
    [("The  LEFT one", "the left one ", True), ("1/2", "0.5", False), ("12.0", "12", False), ("7", "7", True)],
)
def test_text_is_compared_without_case_and_outer_space(prediction: str, reference: str, equal: bool) -> None:
    assert answers_match(prediction, reference, "text") is equal


@pytest.mark.parametrize("answer", ["{{{", "\\frac{1}{", "$$", "\\", "1/0", "x" * 2000, "π ≈ 3", "\x00"])
def test_malformed_mathematics_is_compared_without_an_error(answer: str) -> None:
    assert answers_match(answer, "7") is False
    assert answers_match(answer, answer) is True


def test_mathematics_is_compared_outside_the_main_thread() -> None:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(answers_match("1/2", "0.5")))
    thread.start()
    thread.join()
    assert found == [True]


def test_unknown_comparison_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"match must be one of 'math', 'text', got 'maths' \(did you mean 'math'"):
        answers_match("7", "7", "maths")


@pytest.mark.parametrize(
    ("prediction", "reference"), [("cat", "act"), ("left", "felt"), ("Paris", "3"), ("New York", "York New")]
)
def test_words_are_not_products_of_letters(prediction: str, reference: str) -> None:
    assert not answers_match(prediction, reference, "math")
