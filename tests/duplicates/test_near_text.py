"""Near in text is what says the same in nearly the same words; what only looks alike is not."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from ost_hf.data.rows import Rows
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.duplicates.find import find_duplicates

sys.path.insert(0, str(Path(__file__).parent))

from planted import NEAR, Record, groups, replaced, story, text_rows


@pytest.mark.parametrize(
    "change",
    [
        lambda text: replaced(text, 30),
        lambda text: replaced(text, 0),
        lambda text: text.upper(),
        lambda text: text.replace(" ", "  ") + "!",
        lambda text: f"“{text}”",
        lambda text: text + " finally",
        lambda text: " ".join(text.split()[1:]),
    ],
)
def test_long_texts_with_a_small_change_are_near(change: Callable[[str], str]) -> None:
    text = story(1)
    rows = text_rows(("Tell me.", story(2)), ("Tell me.", text), ("Tell me.", change(text)))
    assert groups(rows) == [[1, 2]]


def test_texts_that_share_half_their_words_are_not_near() -> None:
    first, second = story(1), story(2)
    mixed = " ".join([*first.split()[:30], *second.split()[30:]])
    assert groups(text_rows(("Tell me.", first), ("Tell me.", second), ("Tell me.", mixed))) == []


def test_short_texts_are_equal_but_for_case_spacing_and_punctuation_or_not_near() -> None:
    rows = text_rows(
        ("What is the capital of France?", "Paris"),
        ("what is  the capital of France", "Paris."),
        ("What is the capital of France?", "Lyon"),
        ("What is the capital of Spain?", "Paris"),
        ("What is 3 - 2?", "1"),
        ("What is 3 + 2?", "1"),
        ("How?", "😀"),
        ("How?", "😢"),
    )
    assert groups(rows) == [[0, 1]]


def test_long_question_with_another_short_answer_is_not_near() -> None:
    passage = story(1, length=300)
    rows = text_rows((f"{passage} True?", "Yes."), (f"{passage} True?", "No."), (f"{passage} true", "yes"))
    assert groups(rows) == [[0, 2]]


def test_same_words_said_by_another_or_in_another_order_of_turns_are_not_near() -> None:
    first, second = story(1), story(2)
    chats = [
        [{"role": "user", "content": first}, {"role": "assistant", "content": second}],
        [{"role": "user", "content": second}, {"role": "assistant", "content": first}],
        [{"role": "assistant", "content": first}, {"role": "assistant", "content": second}],
        [{"role": "user", "content": first + " " + second}, {"role": "assistant", "content": second}],
    ]
    assert groups(Rows(datasets.Dataset.from_list([{"messages": chat} for chat in chats]))) == []


def test_long_system_message_makes_nothing_near() -> None:
    chats = [
        [
            {"role": "system", "content": story(0, length=400)},
            {"role": "user", "content": question},
            {"role": "assistant", "content": "Yes."},
        ]
        for question in ("Is it raining?", "Is it snowing?", "is it raining")
    ]
    assert groups(Rows(datasets.Dataset.from_list([{"messages": chat} for chat in chats]))) == [[0, 2]]


def test_numbers_tell_template_texts_apart_unless_they_are_not_to() -> None:
    template = story(1) + " There were {} copper lanterns and {} violet candles in the harbor. How many were there?"
    rows = text_rows(*((template.format(a, b), f"{a + b}") for a, b in ((3, 4), (5, 2), (4, 3))))
    assert groups(rows) == []
    assert groups(rows, DuplicatesConfig(near=True, same_numbers=False)) == [[0, 1, 2]]


def test_scripts_without_spaces_are_compared_by_character() -> None:
    text = "今天早上我们在河边的石桥上看见了一只白色的大鸟它慢慢地飞过了整个安静的村庄然后停在最高的屋顶上休息了很久"
    other = "昨天晚上他们坐在图书馆里讨论新的数学问题直到所有的灯都关了才带着厚厚的笔记本走回宿舍准备明天的考试"
    assert groups(text_rows(("讲", text), ("讲", text.replace("白色", "灰色")), ("讲", other))) == [[0, 1]]


def test_malformed_rows_are_near_nothing() -> None:
    rows = Rows(
        datasets.Dataset.from_list([{"question": text, "answer": "yes"} for text in (None, story(1), "x", story(1))])
    )
    assert groups(rows) == [[1, 3]]


def test_tokenised_rows_are_compared_by_token_ids() -> None:
    def tokens(*changes: tuple[int, int], answer: int = 7) -> Record:
        ids = [random.Random(place).randrange(5000) for place in range(80)]
        for place, token in changes:
            ids[place] = token
        return {"input_ids": [*ids, answer], "labels": [-100] * 80 + [answer]}

    many = [(place, place) for place in range(0, 80, 5)]
    rows = Rows(datasets.Dataset.from_list([tokens(), tokens((40, 1)), tokens(answer=8), tokens(*many)]))
    assert groups(rows) == [[0, 1]]


def test_tokenised_rows_are_near_no_text() -> None:
    pool = Rows(datasets.Dataset.from_list([{"input_ids": [1, 2], "labels": [-100, 2]}]))
    assert find_duplicates(pool, NEAR, text_rows(("1", "2"))).anchors == {}
