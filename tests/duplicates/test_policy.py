"""Rows that repeat something get a status, or the run is refused; nothing is dropped unasked."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from ost_hf.data.config import AnchorConfig, DatasetConfig, EncodingConfig
from ost_hf.data.encoding.encoded import Encoded
from ost_hf.data.rows import Rows
from ost_hf.doctor.examine import diagnose
from ost_hf.doctor.readings import METHODS
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.duplicates.policy import exclude_rows
from ost_hf.errors import DataError, RunDirectoryError
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.runner import score_pool

LONG = " ".join(random.Random(0).choices(["red", "green", "blue", "grey", "pink", "gold"], k=60))
LIKE = LONG.replace(" ", " only ", 1)
EXACT, NEAR = DuplicatesConfig(within_pool="drop"), DuplicatesConfig(within_pool="drop", near=True)


def rows_of(*answers: str, ids: str | None = None, overlap: str | None = None) -> Rows:
    """Rows that differ in their answers; ``ids`` has a letter for each, ``overlap`` makes them anchors."""
    records: list[dict[str, Any]] = [{"question": "Which?", "answer": answer} for answer in answers]
    for record, name in zip(records, ids or "", strict=bool(ids)):
        record["name"] = name
    config = DatasetConfig(path="x", id_column="name") if ids else None
    config = AnchorConfig(path="x", overlap=overlap) if overlap else config
    return Rows(datasets.Dataset.from_list(records), config)


def scored(run_dir: Path, model: str, pool: Rows, **settings: Any) -> list[tuple[str, str]]:
    """Status and detail of each row, by the random scorer."""
    anchors = settings.pop("anchors", None)
    scoring = ScoringConfig(scorer="random")
    table = score_pool(ScoringRequest(run_dir, pool, anchors, ProxyConfig(model), scoring, **settings)).read()
    assert table["row"].to_pylist() == list(range(len(pool)))
    assert [u is None for u in table["utility"].to_pylist()] == [
        s not in ("ok", "truncated") for s in table["status"].to_pylist()
    ]
    return list(zip(table["status"].to_pylist(), table["detail"].to_pylist(), strict=True))


def statuses(found: list[tuple[str, str]]) -> str:
    letters = {"ok": ".", "duplicate": "d", "anchor_overlap": "a", "evaluation_overlap": "e"}
    return "".join(letters[status] for status, _ in found)


def test_nothing_is_dropped_unless_asked(vlm_path: str, tmp_path: Path) -> None:
    found = scored(tmp_path, vlm_path, rows_of("yes", "no", "yes"))
    assert statuses(found) == "..."
    report = json.loads((tmp_path / "duplicates.json").read_text())
    assert report["pool"]["exact"] == 1
    assert report["pool"]["not_scored"] == 0


def test_dropped_row_names_what_is_kept_in_its_place(vlm_path: str, tmp_path: Path) -> None:
    pool = rows_of(LONG, "no", LIKE, LONG, "no", ids="cebad")
    found = scored(tmp_path, vlm_path, pool, duplicates=NEAR)
    assert statuses(found) == "ddd.."
    assert [detail for _, detail in found[:3]] == [
        "exact duplicate of a", "exact duplicate of d", "near duplicate of a",
    ]  # fmt: skip
    report = json.loads((tmp_path / "duplicates.json").read_text())
    assert report["pool"] == {
        "exact": 2,
        "near": 1,
        "copies": {
            "c": {"row": 0, "kind": "exact", "of": "a"},
            "e": {"row": 1, "kind": "exact", "of": "d"},
            "b": {"row": 2, "kind": "near", "of": "a"},
        },
        "not_scored": 3,
        "groups": 2,
    }
    assert report["near_pairs"] == {"pool": 1}


def test_kept_rows_do_not_depend_on_the_order_of_the_pool() -> None:
    pool = rows_of(LONG, "no", LIKE, LONG, "no", "yes", ids="cebadf")
    excluded, _ = exclude_rows(pool, None, "error", NEAR)
    kept = {pool.example_ids[row] for row in range(6) if row not in excluded}
    assert kept == {"a", "d", "f"}
    for seed in range(3):
        order = random.Random(seed).sample(range(6), 6)
        shuffled = pool.select(order)
        excluded, _ = exclude_rows(shuffled, None, "error", NEAR)
        assert {shuffled.example_ids[row] for row in range(6) if row not in excluded} == kept


def test_overlap_is_dropped_with_its_own_status_and_keeps_no_other_row_out(vlm_path: str, tmp_path: Path) -> None:
    """Of the rows of a group, those that are anchors are not scored and cannot be the one that is kept."""
    pool = rows_of("yes", LONG, "no", LIKE, "maybe", "maybe", ids="fbdeca")
    found = scored(
        tmp_path,
        vlm_path,
        pool,
        anchors=rows_of("yes", LONG, overlap="drop"),
        evaluation=(rows_of("no", "Maybe!"),),
        duplicates=DuplicatesConfig("drop", evaluation="drop", near=True),
    )
    assert statuses(found) == "aaeaee"
    details = [detail for _, detail in found]
    assert details[0] == details[1] == "the row is also an anchor"
    assert details[2].startswith("exact duplicate of test row ")
    assert details[3].startswith("near duplicate of anchor ")
    assert details[4].startswith("near duplicate of test row ")
    report = json.loads((tmp_path / "duplicates.json").read_text())
    assert [(report[name]["exact"], report[name]["near"]) for name in ("anchors", "evaluation", "pool")] == [
        (2, 1), (1, 2), (0, 0),
    ]  # fmt: skip


def test_row_that_is_not_scored_is_not_the_one_kept(vlm_path: str, tmp_path: Path) -> None:
    """Row a is near an anchor, and rows b and c only near row a."""
    words = [first + second for first in "abcdefghijklmnopqrstuvwxyz" for second in "abc"]
    versions = [" ".join([*["other"] * count, *words[count:]]) for count in (0, 6, 12, 12)]
    pool = rows_of(*versions[1:3], versions[3] + ".", ids="abc")
    found = scored(
        tmp_path,
        vlm_path,
        pool,
        anchors=rows_of(versions[0]),
        duplicates=DuplicatesConfig("drop", anchors="drop", near=True),
    )
    assert statuses(found) == "a.d"
    assert found[2][1] == "near duplicate of b"


@pytest.mark.parametrize(
    ("settings", "answers", "message"),
    [
        (
            {"within_pool": "error"},
            ("yes", "no", "yes"),
            r"1 rows of the pool \(1 exactly, 0 nearly; row 2, .*-1, is like .*-0\) repeat another row of it\. Remove "
            r"them, or set duplicates\.within_pool to drop, report or off",
        ),
        (
            {"near": True},
            (LIKE, "no"),
            r"1 rows of the pool \(0 exactly, 1 nearly; row 0, .*\) repeat an anchor; an anchor would vouch for "
            r"itself\. Hold the anchors out, or set duplicates\.anchors to drop or report",
        ),
        (
            {},
            ("no", "test"),
            r"1 rows of the pool \(1 exactly, .*\) repeat a row of the evaluation set; a score on rows that were "
            r"trained on says nothing\. Hold the evaluation set out, or set duplicates\.evaluation to drop",
        ),
        ({}, (LONG, "no"), r"1 rows of the pool are also anchors, .* or set anchors\.overlap to drop"),
    ],
)
def test_refused_duplicates_are_named_before_anything_is_written(
    vlm_path: str, tmp_path: Path, settings: dict[str, Any], answers: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        scored(
            tmp_path / "run",
            vlm_path,
            rows_of(*answers),
            anchors=rows_of(LONG),
            evaluation=(rows_of("test"),),
            duplicates=DuplicatesConfig(**settings),
        )
    assert not (tmp_path / "run").exists()


def test_reported_overlap_stays(vlm_path: str, tmp_path: Path) -> None:
    config = DuplicatesConfig(anchors="report", evaluation="report", near=True)
    pool = rows_of(LIKE, "test", "no")
    found = scored(tmp_path, vlm_path, pool, anchors=rows_of(LONG), evaluation=(rows_of("test"),), duplicates=config)
    assert statuses(found) == "..."
    report = json.loads((tmp_path / "duplicates.json").read_text())
    assert report["anchors"]["near"] == report["evaluation"]["exact"] == 1


def test_anchors_in_the_evaluation_set_are_refused_or_stay(caplog: pytest.LogCaptureFixture) -> None:
    arguments = (rows_of("yes"), rows_of("no", "test"), "error")
    with pytest.raises(DataError, match=r"1 anchors .* repeat a row of the evaluation set; rows would be selected for"):
        exclude_rows(*arguments, DuplicatesConfig(), rows_of("test"))
    excluded, report = exclude_rows(*arguments, DuplicatesConfig(evaluation="drop"), rows_of("test"))
    assert excluded == {}
    assert report["anchors_in_evaluation"]["exact"] == 1
    assert "1 anchors (1 exactly, 0 nearly" in caplog.text


def test_near_anchors_follow_the_exact_ones_by_default() -> None:
    pool, anchors = rows_of(LIKE, "yes"), rows_of(LONG)
    excluded, _ = exclude_rows(pool, anchors, "drop", DuplicatesConfig(near=True))
    assert list(excluded) == [0]
    excluded, _ = exclude_rows(pool, anchors, "drop", DuplicatesConfig(near=True, anchors="report"))
    assert excluded == {}


def test_each_set_gets_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    exclude_rows(rows_of("yes", "no", "yes"), rows_of("a"), "error", EXACT, rows_of("b"))
    assert caplog.messages == [
        "duplicates of anchors: 0 exact, 0 near; 0 of these rows are not scored",
        "duplicates of the evaluation set: 0 exact, 0 near; 0 of these rows are not scored",
        "duplicates of another row of the pool: 1 exact, 0 near; 1 of these rows are not scored",
    ]


def test_other_settings_or_evaluation_rows_are_another_run(vlm_path: str, tmp_path: Path) -> None:
    pool = rows_of("yes", "no", "yes")
    scored(tmp_path, vlm_path, pool, evaluation=(rows_of("test"),))
    before = (tmp_path / "duplicates.json").read_text()
    with pytest.raises(RunDirectoryError, match=r"duplicates\.within_pool was 'report', now 'drop'"):
        scored(tmp_path, vlm_path, pool, evaluation=(rows_of("test"),), duplicates=EXACT)
    with pytest.raises(RunDirectoryError, match=r"another run: evaluation was '.*', now '.*'\. Choose"):
        scored(tmp_path, vlm_path, pool, evaluation=(rows_of("other"),))
    assert (tmp_path / "duplicates.json").read_text() == before
    scored(tmp_path, vlm_path, pool, evaluation=(rows_of("test"),))


@pytest.mark.slow
def test_doctor_and_score_warm_up_the_same_proxy(
    vlm_path: str,
    pool_dataset: datasets.Dataset,
    anchor_dataset: datasets.Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What the doctor measures with the proxy has nothing to do with how it is warmed up.
    monkeypatch.setattr("ost_hf.doctor.readings.METHODS", METHODS[:1])
    doubled = datasets.concatenate_datasets([pool_dataset.select(range(20)), pool_dataset.select(range(5))])
    anchors = Rows(anchor_dataset.select(range(4)))
    proxy = ProxyConfig(vlm_path, warmup_fraction=0.5, warmup_min_steps=2, warmup_batch_size=4)
    request = ScoringRequest(tmp_path, Rows(doubled), anchors, proxy, duplicates=EXACT)
    diagnose(request, rows=4)
    assert json.loads((tmp_path / "duplicates.json").read_text())["pool"]["exact"] == 5
    table = score_pool(request).read()
    assert table["status"].to_pylist().count("duplicate") == 5


STRIPE = Image.fromarray(np.arange(201, dtype=np.uint8)[None].repeat(3, axis=0)).convert("RGB")
# Near copies of which the first cannot be scored, or only cut off, and what encoding says of it.
LOSING: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "too_long": ({"answer": LIKE + " !" * 40}, {"answer": LONG}, {"max_length": 330}),
    "truncated": ({"answer": LIKE + " !" * 40}, {"answer": LONG}, {"max_length": 330, "overflow": "truncate"}),
    "no_labels": ({"answer": ""}, {"answer": "."}, {}),
    "bad_image": (
        {"image": STRIPE.resize((402, 1)), "answer": "yes"},
        {"image": STRIPE.resize((190, 1)), "answer": "Yes"},
        {},
    ),
}


@pytest.mark.parametrize("status", LOSING)
@pytest.mark.parametrize("names", ["abc", "cba", "bca"])
def test_of_near_copies_one_that_can_be_scored_is_kept(vlm_path: str, tmp_path: Path, status: str, names: str) -> None:
    losing, fitting, encoding = LOSING[status]
    records = [{"question": "Which?", **record} for record in (losing, losing, fitting)]
    if "image" not in losing:
        records = [{**record, "image": None} for record in records]
    pool = Rows(
        datasets.Dataset.from_list([{**r, "name": name} for r, name in zip(records, names, strict=True)]),
        DatasetConfig(path="x", id_column="name"),
    )
    config = EncodingConfig(**encoding)
    alone = [each[0] for each in scored(tmp_path / "alone", vlm_path, pool, encoding=config)]
    assert alone == [status, status, "ok"]
    found = scored(tmp_path / "dropped", vlm_path, pool, encoding=config, duplicates=NEAR)
    assert [each[0] for each in found] == ["duplicate", "duplicate", "ok"]
    assert found[0][1] == f"near duplicate of {names[2]}"
    # What was killed goes on, and finds the same.
    assert scored(tmp_path / "dropped", vlm_path, pool, encoding=config, duplicates=NEAR) == found


def test_copy_of_an_anchor_is_not_kept_for_a_copy_that_cannot_be_scored(vlm_path: str, tmp_path: Path) -> None:
    """Row a is too long, row b repeats an anchor, row c fits; all are near."""
    pool = rows_of(LIKE + " !" * 40, LONG, LONG.upper(), ids="abc")
    found = scored(
        tmp_path,
        vlm_path,
        pool,
        anchors=rows_of(LONG, overlap="drop"),
        duplicates=DuplicatesConfig("drop", anchors="report", near=True),
        encoding=EncodingConfig(max_length=330),
    )
    assert [each[0] for each in found] == ["duplicate", "anchor_overlap", "ok"]
    assert found[0][1] == "near duplicate of c"


def test_where_no_copy_can_be_scored_the_first_says_why(vlm_path: str, tmp_path: Path) -> None:
    pool = rows_of(LONG, LIKE, ids="ba")
    found = scored(tmp_path, vlm_path, pool, duplicates=NEAR, encoding=EncodingConfig(max_length=20))
    assert [each[0] for each in found] == ["duplicate", "too_long"]


def test_rows_are_encoded_for_this_only_where_copies_differ() -> None:
    asked: list[int] = []
    pool = rows_of("yes", "no", "yes", LONG, LIKE, LONG)

    def encode(row: int) -> Encoded:
        asked.append(row)
        return Encoded(pool.example_ids[row], row, "too_long")

    exclude_rows(pool, None, "error", DuplicatesConfig(near=True), encode=encode)
    assert asked == []
    excluded, _ = exclude_rows(pool, None, "error", NEAR, encode=encode)
    assert {pool.content_hashes[row] for row in asked} == {pool.content_hashes[row] for row in (3, 4)}
    assert len(asked) == 2
    assert len(excluded) == 3
