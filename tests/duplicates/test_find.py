"""Duplicates are the same whatever the order of the pool, and are found in anchors and evaluation sets too."""

from __future__ import annotations

import itertools
import random
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from ost_hf.data.config import DatasetConfig
from ost_hf.data.rows import Rows
from ost_hf.duplicates import near
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.duplicates.find import find_duplicates
from ost_hf.errors import ConfigError

sys.path.insert(0, str(Path(__file__).parent))

from planted import NEAR, Record, as_jpeg, groups, noisy, photo, picture_rows, replaced, story, text_rows


def test_exact_duplicates_are_found() -> None:
    rows = text_rows(("a", "b"), ("c", "d"), ("a", "b"), ("A", "b"), ("c", "d"), ("a", "b"))
    assert groups(rows, DuplicatesConfig()) == [[0, 2, 5], [1, 4]]


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


@pytest.mark.slow
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


def test_copies_among_many_look_alikes_are_found_in_smaller_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "WINDOW", 4)  # as with 256 among thousands of rows
    generator = random.Random(2)
    words = ["".join(generator.choices("abcdefghijklmnop", k=6)) for _ in range(4000)]
    template = generator.choices(words, k=53)
    texts = [[*template[:26], *generator.choices(words, k=7), *template[26:]] for _ in range(80)]
    copied = [[*text[:5], "changed", *text[6:]] for text in texts[:20]]
    rows = [{"prompt": " ".join(text), "completion": "yes"} for text in (*texts, *copied)]
    found = find_duplicates(Rows(datasets.Dataset.from_list(rows)), DuplicatesConfig(near=True))
    assert found.groups == [[row, 80 + row] for row in range(20)]


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
        ({"seed": -1}, r"duplicates\.seed must be an integer >= 0, got -1"),
    ],
)
def test_impossible_settings_are_refused(settings: Record, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DuplicatesConfig(**settings)
