"""Anchors keep the proportions of what they are drawn from, and stay out of the pool."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest

from ost_hf.data.anchors import load_anchors, refuse_overlap, stratified_sample
from ost_hf.data.config import AnchorConfig, DatasetConfig
from ost_hf.data.rows import Rows
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.duplicates.find import find_duplicates
from ost_hf.errors import ConfigError, DataError

STRATA = ["sum"] * 50 + ["product"] * 30 + ["maximum"] * 20


def records(*numbers: int) -> list[dict[str, Any]]:
    return [{"question": f"{i} + 1?", "answer": str(i + 1), "kind": STRATA[i % 100]} for i in numbers]


def make_rows(*numbers: int) -> Rows:
    return Rows(datasets.Dataset.from_list(records(*numbers)))


@pytest.fixture
def held_out(tmp_path: Path) -> str:
    """A hundred saved rows in three strata of 50, 30 and 20."""
    datasets.Dataset.from_list(records(*range(100))).save_to_disk(tmp_path / "held_out")
    return str(tmp_path / "held_out")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (10, {"sum": 5, "product": 3, "maximum": 2}),
        (100, {"sum": 50, "product": 30, "maximum": 20}),
        (4, {"sum": 2, "product": 1, "maximum": 1}),
        (3, {"sum": 1, "product": 1, "maximum": 1}),
        (1, {"sum": 1}),
    ],
)
def test_sample_keeps_proportions(size: int, expected: dict[str, int]) -> None:
    chosen = stratified_sample(STRATA, size, seed=0)
    assert Counter(STRATA[i] for i in chosen) == expected
    assert chosen == sorted(set(chosen))


@pytest.mark.parametrize("size", range(1, 8))
@pytest.mark.parametrize(
    "strata", [["a"] * 7, list("abcdefg"), list("aabbbbc"), [None] * 7, [1, 1, 2, 2.5, None, "x", "x"]]
)
def test_sample_has_the_size_asked_for_without_repetition(strata: list[Any], size: int) -> None:
    chosen = stratified_sample(strata, size, seed=3)
    assert len(set(chosen)) == len(chosen) == size
    share = Counter(str(strata[i]) for i in chosen)
    for name, count in Counter(map(str, strata)).items():
        assert abs(share[name] - size * count / 7) < 1


def test_same_seed_draws_the_same_rows() -> None:
    assert stratified_sample(STRATA, 10, seed=1) == stratified_sample(STRATA, 10, seed=1)
    assert stratified_sample(STRATA, 10, seed=1) != stratified_sample(STRATA, 10, seed=2)


def test_all_rows_are_anchors_by_default(held_out: str) -> None:
    assert len(load_anchors(AnchorConfig(path=held_out))) == 100


def test_drawn_anchors_are_stratified_and_keep_their_ids(held_out: str) -> None:
    everything = Rows.load(DatasetConfig(path=held_out)).example_ids
    rows = load_anchors(AnchorConfig(path=held_out, size=20, stratify_by="kind", seed=4))
    assert Counter(rows.dataset["kind"]) == {"sum": 10, "product": 6, "maximum": 4}
    assert rows.example_ids == [everything[i] for i in stratified_sample(STRATA, 20, seed=4)]


def test_anchors_without_strata_are_a_seeded_draw(held_out: str) -> None:
    draws = [load_anchors(AnchorConfig(path=held_out, size=20, seed=seed)).example_ids for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 20


def test_more_anchors_than_rows_are_refused(held_out: str) -> None:
    with pytest.raises(DataError, match=r"anchors\.size is 101, but .*held_out \(train\) has only 100 rows"):
        load_anchors(AnchorConfig(path=held_out, size=101))


def test_missing_stratum_column_is_named_with_those_there_are(held_out: str) -> None:
    with pytest.raises(DataError, match=r"there is no column 'nope'; there are: question, answer, kind"):
        load_anchors(AnchorConfig(path=held_out, size=10, stratify_by="nope"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, r"anchors\.size must be an integer >= 1, got 0"),
        ({"overlap": "dorp"}, r"anchors\.overlap must be one of 'error', 'drop', got 'dorp' \(did you mean 'drop'"),
        ({"stratify_by": "kind"}, r"anchors\.stratify_by needs anchors\.size"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AnchorConfig(path="x", **settings)


def found_in(pool: Rows, anchors: Rows) -> set[int]:
    """Rows of the pool that are anchors too; one way of looking refuses what the other finds."""
    found = set(find_duplicates(pool, DuplicatesConfig(), anchors).anchors)
    if found:
        with pytest.raises(DataError, match=rf"^{len(found)} rows of the pool are also anchors"):
            refuse_overlap(pool, anchors)
    else:
        refuse_overlap(pool, anchors)
    return found


def test_disjoint_anchors_overlap_nowhere() -> None:
    assert found_in(make_rows(1, 2, 3), make_rows(4, 5)) == set()


def test_anchors_in_the_pool_are_an_error_that_names_count_and_row() -> None:
    pool = make_rows(1, 2, 3, 2)
    with pytest.raises(
        DataError, match=rf"2 rows of the pool are also anchors, such as row 1 \({pool.example_ids[1]}\)"
    ):
        refuse_overlap(pool, make_rows(7, 2))


def test_every_copy_of_an_anchor_is_found() -> None:
    assert found_in(make_rows(1, 2, 3, 2), make_rows(2, 3, 9)) == {1, 2, 3}


def test_overlap_is_found_across_layouts_columns_and_ids() -> None:
    chat = [{"role": "user", "content": "2 + 1?"}, {"role": "assistant", "content": "3"}]
    pool = Rows(
        datasets.Dataset.from_list([{"messages": chat, "name": "x"}]), DatasetConfig(path="x", id_column="name")
    )
    assert found_in(pool, make_rows(1, 2)) == {0}


def test_same_words_under_another_picture_are_no_overlap(pool_dataset: datasets.Dataset) -> None:
    first, second = pool_dataset[0], pool_dataset[1]
    swapped = datasets.Dataset.from_list([{**first, "image": second["image"]}])
    assert found_in(Rows(pool_dataset.select([0])), Rows(swapped)) == set()
    assert found_in(Rows(pool_dataset.select([0])), Rows(pool_dataset.select([1, 0]))) == {0}
