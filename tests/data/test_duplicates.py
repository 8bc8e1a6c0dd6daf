"""Duplicates are found whatever the order, and what only looks alike is none."""

from __future__ import annotations

import io
import itertools
import random
import sys
from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import pytest
import task
from PIL import Image, ImageDraw

from ost_hf.data import near, near_images
from ost_hf.data.config import DatasetConfig, DuplicatesConfig
from ost_hf.data.duplicates import find_duplicates
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError

NEAR = DuplicatesConfig(near=True)
WORDS = "river stone window lantern copper meadow winter ladder engine basket copper thread harbor violet summit candle"
Record = dict[str, Any]
Change = Callable[[Any], Any]


def story(seed: int, length: int = 60) -> str:
    generator = random.Random(seed)
    return " ".join(generator.choice(WORDS.split()) + generator.choice(["", "s", "ing"]) for _ in range(length))


def text_rows(*pairs: tuple[str, str]) -> Rows:
    return Rows(datasets.Dataset.from_list([{"question": question, "answer": answer} for question, answer in pairs]))


def groups(rows: Rows, config: DuplicatesConfig = NEAR) -> list[list[int]]:
    return find_duplicates(rows, config).groups


def replaced(text: str, place: int, word: str = "otherwise") -> str:
    words = text.split()
    words[place] = word
    return " ".join(words)


# Pictures ---------------------------------------------------------------------------------------


def noisy(picture: Any) -> Any:
    pixels = np.asarray(picture).astype(int)
    noise = np.random.RandomState(0).randint(-4, 5, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def as_jpeg(picture: Any) -> Any:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return Image.open(buffer).convert("RGB")


def resized(by: float) -> Change:
    return lambda picture: picture.resize((round(picture.width * by), round(picture.height * by)), Image.BICUBIC)


CHANGES: dict[str, Change] = {
    "noise": noisy,
    "jpeg": as_jpeg,
    "larger": resized(1.1),
    "smaller": resized(0.9),
    "both": lambda picture: noisy(resized(1.06)(picture)),
}


def photo(seed: int, size: tuple[int, int] = (160, 120)) -> Any:
    """Soft blobs of colour, as photographs have."""
    pixels = np.random.RandomState(seed).randint(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.BICUBIC)


def picture_rows(*triples: tuple[Any, str, str]) -> Rows:
    """Rows of one picture or a list of them, a question and an answer."""
    records = [
        {"images": images if isinstance(images, list) else [images], "question": question, "answer": answer}
        for images, question, answer in triples
    ]
    features = datasets.Features(
        {
            "images": datasets.List(datasets.Image()),
            "question": datasets.Value("string"),
            "answer": datasets.Value("string"),
        }
    )
    return Rows(datasets.Dataset.from_list(records, features=features))


# Text -------------------------------------------------------------------------------------------


def test_exact_duplicates_are_found_without_further_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    without_libraries(monkeypatch)
    rows = text_rows(("a", "b"), ("c", "d"), ("a", "b"), ("A", "b"), ("c", "d"), ("a", "b"))
    assert groups(rows, DuplicatesConfig()) == [[0, 2, 5], [1, 4]]


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


# Pictures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", CHANGES)
def test_changed_scans_are_near_and_other_scans_are_not(change: str) -> None:
    """The same question and answer under each picture."""
    chosen = random.Random(3).sample(task.scans_of("pool"), 40)
    pictures = [task.picture(left, right) for left, right in zip(chosen[::2], chosen[1::2], strict=True)]
    changed = [CHANGES[change](picture) for picture in pictures]
    rows = picture_rows(*((picture, "Which is larger?", "answer: 7") for picture in [*pictures, *changed]))
    assert groups(rows) == [[number, number + 20] for number in range(20)]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_photographs_are_near_and_others_are_not(change: str) -> None:
    pictures = [photo(seed) for seed in range(12)]
    changed = [CHANGES[change](picture) for picture in pictures]
    rows = picture_rows(*((picture, "What is shown?", "A meadow.") for picture in [*pictures, *changed]))
    assert groups(rows) == [[number, number + 12] for number in range(12)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_clean_rows_of_the_demo_have_no_near_duplicates(seed: int) -> None:
    """One row of 600 would be a rate of 0.2 %: none is found, on scans that were drawn again and again."""
    rows = Rows(task.as_dataset(task.clean_rows(600, "pool", seed=seed)))
    assert groups(rows) == groups(rows, DuplicatesConfig()) == []


def test_other_scans_of_the_same_digits_are_not_near() -> None:
    """The hardest case: the same words, the same digits, and one of the two scans the same."""
    labels, scans = task._digits()[1], task.scans_of("pool")
    sevens = [scan for scan in scans if labels[scan] == 3][:40]
    rows = picture_rows(*((task.picture(sevens[0], scan), "The sum?", "answer: 6") for scan in sevens))
    assert groups(rows) == []


def test_same_picture_under_another_question_is_not_near() -> None:
    one = photo(1)
    assert groups(picture_rows((one, "What is shown?", "A meadow."), (noisy(one), "Where is it?", "A meadow."))) == []


def test_colour_position_and_size_of_shapes_tell_pictures_apart() -> None:
    def shape(box: tuple[int, int, int, int], colour: str) -> Any:
        picture = Image.new("RGB", (120, 120), "white")
        ImageDraw.Draw(picture).rectangle(box, fill=colour)
        return picture

    boxes = [
        ((20, 20, 60, 60), "red"),
        ((20, 20, 60, 60), "blue"),
        ((50, 50, 90, 90), "red"),
        ((20, 20, 90, 90), "red"),
    ]
    assert groups(picture_rows(*((shape(*box), "What is it?", "A shape.") for box in boxes))) == []


def test_pictures_are_compared_one_by_one_in_their_order() -> None:
    a, b, c = photo(1), photo(2), photo(3)
    rows = picture_rows(
        ([a, b], "Alike?", "No."),
        ([noisy(a), as_jpeg(b)], "Alike?", "No."),
        ([b, a], "Alike?", "No."),
        ([a, c], "Alike?", "No."),
        ([a], "Alike?", "No."),
        ([a, b, c], "Alike?", "No."),
    )
    assert groups(rows) == [[0, 1]]


def test_row_without_a_picture_is_not_near_one_with_it() -> None:
    dataset = datasets.Dataset.from_list(
        [
            {"images": [], "question": "What?", "answer": "That."},
            {"images": [photo(1)], "question": "What?", "answer": "That."},
        ],
        features=picture_rows((photo(1), "", "")).dataset.features,
    )
    assert groups(Rows(dataset)) == []


def test_unreadable_pictures_are_near_nothing() -> None:
    dataset = picture_rows((photo(1), "What?", "That."), (photo(2), "What?", "That.")).dataset
    records = dataset.cast_column("images", datasets.List(datasets.Image(decode=False))).to_list()
    for number, record in enumerate(records):
        record["images"][0] = {"bytes": f"broken {number}".encode(), "path": None}
    assert groups(Rows(datasets.Dataset.from_list(records, features=dataset.features))) == []


# Groups, order and size -------------------------------------------------------------------------


def mixed_rows() -> Rows:
    """Exact and near duplicates in text and pictures among rows of their own."""
    text, picture, blank = story(1), photo(1), Image.new("RGB", (64, 64), "white")
    return picture_rows(
        *((photo(seed), "What?", story(seed)) for seed in range(2, 12)),
        ([], "Tell.", text),
        ([], "Tell.", text),
        ([], "Tell.", replaced(text, 20)),
        (picture, "What?", text),
        (noisy(picture), "What?", replaced(text, 3)),
        (as_jpeg(picture), "what?", replaced(text, 50)),
        *((blank, "Empty?", answer) for answer in ("Yes.", "yes", "No.", "YES")),
    )


def test_groups_are_those_of_comparing_all_with_all() -> None:
    rows = mixed_rows()
    finder = near.NearFinder([rows], [list(range(len(rows)))], NEAR)
    pairs = {pair for pair in itertools.combinations(range(len(rows)), 2) if finder.is_near(*pair)}
    candidates = {tuple(sorted(pair)) for pair in finder.candidates(0, 0)}
    assert pairs <= candidates
    assert len(candidates) < len(rows)
    assert {frozenset(pair) for pair in pairs} == {
        frozenset(pair) for group in groups(rows) for pair in itertools.combinations(group, 2)
    }


@pytest.mark.parametrize("similarity", [0.5, 0.9, 0.97])
def test_small_pictures_rule_out_no_near_ones(similarity: float) -> None:
    pictures = [photo(seed) for seed in range(8)] + [task.picture(scan, scan) for scan in range(8)]
    changed = [change(picture) for picture in pictures for change in (lambda same: same, *CHANGES.values())]
    looks = [near_images.look_at(picture) for picture in changed]
    pairs = list(itertools.combinations(looks, 2))
    small = (np.stack([pair[side].small for pair in pairs]) for side in (0, 1))
    contrast = np.array([max(a.contrast, b.contrast) for a, b in pairs])
    possible = near_images.may_be_near(*small, contrast, similarity)
    is_near = np.array([near_images.is_near([a], [b], similarity) for a, b in pairs])
    assert is_near.any()
    assert possible[is_near].all()
    assert possible.mean() < 0.5


def test_groups_do_not_depend_on_the_order_of_the_pool() -> None:
    rows = mixed_rows()
    expected = [[10, 11, 12], [13, 14, 15], [16, 17, 19]]
    assert groups(rows) == expected
    for seed in range(3):
        order = random.Random(seed).sample(range(len(rows)), len(rows))
        found = groups(Rows(rows.dataset.select(order)))
        assert sorted(sorted(order[row] for row in group) for group in found) == expected


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_groups_of_clear_cases_do_not_depend_on_the_seed(seed: int) -> None:
    assert groups(mixed_rows(), DuplicatesConfig(near=True, seed=seed)) == groups(mixed_rows())


def test_ids_of_a_column_change_no_group() -> None:
    rows = mixed_rows()
    named = rows.dataset.add_column("name", [f"row {100 - row}" for row in range(len(rows))])
    assert groups(Rows(named, DatasetConfig(path="x", id_column="name"))) == groups(rows)


def test_rows_of_a_template_are_not_compared_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand pictures under the same words, of which two are near: few of the two million pairs are read."""
    generator = np.random.RandomState(0)
    pictures = [Image.fromarray(generator.randint(0, 256, (8, 8, 3)).astype(np.uint8)) for _ in range(2000)]
    rows = picture_rows(*((picture, "What?", "That.") for picture in [*pictures, noisy(pictures[7])]))
    compared = []
    compare = near.NearFinder.is_near
    monkeypatch.setattr(near.NearFinder, "is_near", lambda self, *pair: compared.append(pair) or compare(self, *pair))
    assert groups(rows) == [[7, 2000]]
    assert len(compared) < 200


def test_group_larger_than_the_window_is_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "WINDOW", 4)
    text = story(1)
    rows = text_rows(*((f"Tell.{' ' * number}", text) for number in range(40)))
    assert groups(rows) == [list(range(40))]


def test_rows_beyond_the_window_are_said_to_be_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(near, "WINDOW", 1)
    groups(text_rows(*((f"Tell.{' ' * number}", "Yes.") for number in range(4))))
    assert "a row had more than 1 look-alikes, and was not compared with the rest" in caplog.text


# Anchors and evaluation -------------------------------------------------------------------------


def test_overlap_with_anchors_and_evaluation_names_row_kind_and_other() -> None:
    text, picture = story(1), photo(1)
    pool = picture_rows(
        (picture, "What?", "A meadow."),
        ([], "Tell.", text),
        ([], "Tell.", "Nothing."),
        (noisy(picture), "What?", "A meadow."),
        (photo(2), "What?", "A meadow."),
    )
    anchors = picture_rows((as_jpeg(picture), "What?", "A meadow."), ([], "Tell.", "Nothing."))
    evaluation = picture_rows(([], "Tell.", replaced(text, 9)), ([], "tell", "nothing"))
    found = find_duplicates(pool, NEAR, anchors, evaluation)
    assert {row: (copy.kind, copy.of) for row, copy in found.anchors.items()} == {
        0: ("near", anchors.example_ids[0]),
        2: ("exact", anchors.example_ids[1]),
        3: ("near", anchors.example_ids[0]),
    }
    assert {row: (copy.kind, copy.of) for row, copy in found.evaluation.items()} == {
        1: ("near", evaluation.example_ids[0]),
        2: ("near", evaluation.example_ids[1]),
    }
    assert {row: copy.kind for row, copy in found.anchors_in_evaluation.items()} == {1: "near"}
    assert found.groups == [[0, 3]]


def test_every_copy_of_a_near_row_overlaps() -> None:
    text = story(1)
    pool = text_rows(("Tell.", text), ("Tell.", "Nothing."), ("Tell.", text))
    assert sorted(find_duplicates(pool, NEAR, text_rows(("Tell.", replaced(text, 9)))).anchors) == [0, 2]


def test_configured_system_prompt_hides_no_overlap() -> None:
    records = [{"question": "Tell.", "answer": story(1)}]
    pool = Rows(datasets.Dataset.from_list(records), DatasetConfig(path="x", system_prompt="Be brief."))
    anchors = text_rows(("Tell.", replaced(story(1), 9)))
    assert sorted(find_duplicates(pool, NEAR, anchors).anchors) == [0]


def test_what_is_off_is_not_looked_for() -> None:
    text = story(1)
    pool = text_rows(("Tell.", text), ("Tell.", text))
    others = text_rows(("Tell.", replaced(text, 9)))
    found = find_duplicates(pool, DuplicatesConfig("off", "off", "off", near=True), others, others)
    assert (found.groups, found.anchors, found.evaluation, found.near_pairs) == ([], {}, {}, {})


# Settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"within_pool": "dorp"},
            r"duplicates\.within_pool must be one of .*'drop'.*, got 'dorp' \(did you mean 'drop'",
        ),
        ({"anchors": "keep"}, r"duplicates\.anchors must be one of 'report', 'drop', 'error', 'off', got 'keep'"),
        ({"evaluation": "keep"}, r"duplicates\.evaluation must be one of .*, got 'keep'"),
        ({"text_similarity": 1.0}, r"duplicates\.text_similarity must be a number >= 0\.5 and <= 0\.95, got 1\.0"),
        ({"image_similarity": 0.2}, r"duplicates\.image_similarity must be a number >= 0\.5 and <= 0\.99, got 0\.2"),
        ({"seed": -1}, r"duplicates\.seed must be a number >= 0, got -1"),
    ],
)
def test_impossible_settings_are_refused(settings: Record, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DuplicatesConfig(**settings)


def without_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an installation without the extra sees."""
    for name in ("datasketch", "imagehash"):
        monkeypatch.setitem(sys.modules, name, None)


def test_missing_libraries_are_named_with_the_extra_that_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    without_libraries(monkeypatch)
    with pytest.raises(ConfigError, match=r"near needs datasketch, .*pip install 'ost-hf\[duplicates\]', or set dupl"):
        groups(text_rows(("a", "b")))
