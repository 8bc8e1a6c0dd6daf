"""A scored run, asked again: other anchors, other rows."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import task

import ost_hf
from ost_hf.data.config import AnchorConfig, DatasetConfig, EncodingConfig
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, RunDirectoryError
from ost_hf.evidence.nonconformity import nonconformity
from ost_hf.evidence.rank_correlation import spearman
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring import prepared_proxy
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.loop import run_scorer
from ost_hf.scoring.runner import open_job, score_pool
from ost_hf.scoring.second_look.options import SecondLookOptions
from ost_hf.scoring.second_look.rounds import fold
from ost_hf.tables.anchor_table import read_anchor_scores
from ost_hf.tables.score_table import ScoreTable

LOOK = SecondLookOptions(
    cross_fit=True, rounds=3, max_steps=None, min_steps=3, batch_size=6, epochs=0.1, learning_rate=1e-3
)
CONFIG = ScoringConfig(second_stage="second_look", sections={"second_look": LOOK}, store=True, part_size=8)
FIRST_LOOK = ("utility", "loss", "grad_norm", "sketch", "embedding", "tokens", "status", "detail")
ADDED = ("late_loss", "corrupted_p", "p_value_anchors", "held_out")


@pytest.fixture(scope="module")
def proxy_config(vlm_path: str) -> ProxyConfig:
    return ProxyConfig(vlm_path, warmup_fraction=0.2, warmup_min_steps=5, warmup_learning_rate=1e-3)


@pytest.fixture(scope="module")
def rows(pool_dataset: datasets.Dataset) -> datasets.Dataset:
    """Thirty of them: proxies are trained on these."""
    return pool_dataset.select(range(30))


@pytest.fixture(scope="module")
def new_anchors() -> datasets.Dataset:
    return task.as_dataset(task.clean_rows(10, "anchors", seed=7))


@pytest.fixture(scope="module")
def request_for(rows, anchor_dataset, proxy_config):
    """Asks for scores in a folder, as the stored run was asked for but for what is given."""

    def make(folder: Path, pool=rows, anchors=anchor_dataset, **changes: Any) -> ScoringRequest:
        request = ScoringRequest(folder, Rows(pool), Rows(anchors), proxy_config, CONFIG)
        return replace(request, **changes)

    return make


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, request_for) -> Path:
    """A run that is asked again; nothing is written into it."""
    folder = tmp_path_factory.mktemp("stored")
    score_pool(request_for(folder))
    return folder


def values(table: ScoreTable, column: str) -> list[Any]:
    return table.read()[column].to_pylist()


@pytest.fixture
def scored_rows(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[int]]]:
    """The rows that any model is asked about, with the folder of the table that they go into."""
    asked: list[tuple[str, list[int]]] = []

    def noting(scorer, job, rows, table=None):
        asked.append(((table or job.table).folder.name, sorted(set(rows) - set(job.exclude))))
        return run_scorer(scorer, job, rows, table)

    for module in ("anchor_scores", "reuse", "second_look.rounds"):
        monkeypatch.setattr(f"ost_hf.scoring.{module}.run_scorer", noting)
    return asked


def test_a_stored_run_keeps_its_proxies_and_vectors_of_half_precision(
    stored: Path, tmp_path: Path, request_for, caplog: pytest.LogCaptureFixture
) -> None:
    table = ScoreTable(stored / "scores").read()
    for column, size in (("sketch", 512), ("embedding", 64)):
        assert table.schema.field(column).type == pa.list_(pa.float16())
        assert {len(vector) for vector in table[column].to_pylist()} == {size}
    lengths = [np.linalg.norm(np.float64(vector)) for vector in table["sketch"].to_pylist()]
    assert np.abs(np.array(lengths) - 1).max() < 0.3  # of gradients of length one
    kept = sorted(path.parent.relative_to(stored / "scores" / "second_look") for path in stored.rglob("finished"))
    assert [str(path) for path in kept] == [f"round-{number}/proxy-{k}" for number in (2, 3) for k in (0, 1)]
    with caplog.at_level(logging.INFO):
        open_job(request_for(tmp_path))
    assert "stored for reuse: 30 rows x 1,536 bytes at most (a sketch of 512 and a vector of 256" in caplog.text


@pytest.mark.slow
def test_an_unchanged_pool_with_unchanged_anchors_has_the_same_table(
    stored: Path, tmp_path: Path, request_for, scored_rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared_proxy, "build_proxy", None)
    again = score_pool(request_for(tmp_path / "again", reuse=stored))
    before = ScoreTable(stored / "scores")
    assert again.read().to_pylist() == before.read().to_pylist()
    assert read_anchor_scores(again) == read_anchor_scores(before)
    assert scored_rows == []
    assert again.manifest()["reuse"] == {"run_dir": str(stored), "rows_stored": 30, "rows_scored": 0}
    assert again.manifest()["second_look"] == before.manifest()["second_look"]
    # And selects as any other.
    kept = [ost_hf.select(table, keep_ratio=0.3).table for table in (before, again)]
    assert kept[0] == kept[1]


@pytest.mark.slow
def test_new_anchors_give_the_utilities_of_a_full_run_within_the_sketchs_error(
    stored: Path, tmp_path: Path, request_for, new_anchors, scored_rows
) -> None:
    again = score_pool(request_for(tmp_path / "again", anchors=new_anchors, reuse=stored))
    # Only the sample is asked about: late losses are the stored ones.
    assert [(name, len(rows)) for name, rows in scored_rows if rows] == [("agreement", 30)]
    full = score_pool(request_for(tmp_path / "full", anchors=new_anchors, scoring=replace(CONFIG, second_stage=None)))
    one, other = (np.array(values(table, "utility")) for table in (again, full))
    agreement = again.manifest()["reuse"]["agreement"]
    assert agreement["rows"] == 30
    assert np.abs(one - other).max() < 5 * agreement["standard_error"]
    assert agreement["spearman"] == pytest.approx(spearman(one.tolist(), other.tolist()))
    assert agreement["spearman"] > 0.95
    assert agreement["spread"] == pytest.approx(other.std(), rel=1e-3)
    for column in ("loss", "late_loss", "sketch", "embedding"):
        assert values(again, column) == values(ScoreTable(stored / "scores"), column)
    # The anchors' own scores are full ones.
    of_anchors = [read_anchor_scores(table).to_pylist() for table in (again, full)]
    assert len(of_anchors[0]) == 10
    np.testing.assert_allclose(*([row["utility"] for row in each] for each in of_anchors), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(*(np.array([row["embedding"] for row in each]) for each in of_anchors), atol=1e-2)


@pytest.mark.slow
def test_p_values_are_against_the_new_anchors(
    stored: Path, tmp_path: Path, request_for, new_anchors, anchor_dataset, rows
) -> None:
    """New anchors that hold the old ones twice: the same means, so the same utilities, and the same late losses."""
    doubled = datasets.concatenate_datasets([anchor_dataset, anchor_dataset])
    again = score_pool(request_for(tmp_path / "doubled", anchors=doubled, reuse=stored))
    before = ScoreTable(stored / "scores")
    np.testing.assert_allclose(values(again, "utility"), values(before, "utility"), atol=1e-4)
    losses = [table.manifest()["second_look"]["anchor_losses"] for table in (before, again)]
    for k in (0, 1):
        np.testing.assert_allclose(losses[1][k], losses[0][k] * 2, rtol=1e-4)
    assert set(values(again, "p_value_anchors")) == {24}
    # Slowly: an anchor that stands there twice has a twin to vouch for it, so that its utility is another.
    utility, hashes = read_anchor_scores(again)["utility"].to_numpy(), Rows(rows).content_hashes
    for row in again.read().to_pylist():
        asked = losses[1][1 - fold(hashes[row["row"]], seed=0)]
        own, others = nonconformity([row["late_loss"]], [row["utility"]], asked, utility, LOOK.utility_weight)
        assert row["corrupted_p"] == pytest.approx((1 + sum(other >= own[0] for other in others)) / 25)


@pytest.mark.slow
def test_added_and_edited_rows_alone_are_scored_with_the_stored_proxies(
    stored: Path, tmp_path: Path, request_for, rows, pool_dataset, scored_rows
) -> None:
    """Two rows are new, one is edited, two are gone, and one stands there twice."""
    edited = rows.select([5]).map(lambda row: {"answer": row["answer"] + " yes"})
    order = [29, *range(20, 28), *range(20)]
    pool = datasets.concatenate_datasets([pool_dataset.select([40, 41]), rows.select(order), rows.select([0])])
    pool = datasets.concatenate_datasets([pool.select([r for r in range(len(pool)) if r != 2 + 9 + 5]), edited])
    again = score_pool(request_for(tmp_path / "again", pool=pool, reuse=stored))
    new, last = [0, 1, len(pool) - 1], len(pool) - 1
    assert [asked for name, asked in scored_rows if name == "first"] == [new]
    assert sorted(row for name, asked in scored_rows if name == "round-3" for row in asked) == new
    table, before = again.read(), ScoreTable(stored / "scores").read()
    assert table["row"].to_pylist() == list(range(len(pool)))
    assert table["example_id"].to_pylist() == Rows(pool).example_ids
    place = {content: row for row, content in enumerate(Rows(rows).content_hashes)}
    places = [place.get(content) for content in Rows(pool).content_hashes]
    assert [row for row, known in enumerate(places) if known is None] == new
    for column in (*FIRST_LOOK, *ADDED):
        stored_values = before[column].to_pylist()
        for found, known in zip(table[column].to_pylist(), places, strict=True):
            assert known is None or found == stored_values[known]
    # The edited row has numbers of its own; a run that knew none of the new rows gives the same.
    assert again.manifest()["reuse"]["rows_scored"] == 3
    alone = score_pool(request_for(tmp_path / "alone", pool=pool.select(new), reuse=stored))
    for column in (*FIRST_LOOK[:3], *ADDED):
        np.testing.assert_allclose(
            values(alone, column), [table[column].to_pylist()[row] for row in new], rtol=1e-3, atol=1e-5
        )
    assert table["loss"].to_pylist()[last] != before["loss"].to_pylist()[5]


@pytest.mark.slow
def test_added_rows_get_the_values_that_the_same_proxies_give_them_in_a_run_of_their_own(
    stored: Path, tmp_path: Path, request_for, rows, new_anchors
) -> None:
    """Rows whose stored values are forgotten are new; both at once, with other anchors."""
    half = shutil.copytree(stored, tmp_path / "half")
    contents = Rows(rows).content_hashes
    forgotten = [f"{content}!" if row % 2 else content for row, content in enumerate(contents)]
    ost_hf.scoring.runner.write_contents(ScoreTable(half / "scores"), forgotten)
    again = score_pool(request_for(tmp_path / "again", reuse=half))
    assert again.manifest()["reuse"]["rows_scored"] == 15
    for column in ("utility", "loss", "grad_norm", "late_loss"):
        expected = np.array(values(ScoreTable(stored / "scores"), column))
        assert np.abs(np.array(values(again, column)) - expected).max() < 1e-3 * expected.std()
    both = score_pool(request_for(tmp_path / "both", anchors=new_anchors, reuse=half))
    full = score_pool(request_for(tmp_path / "full", anchors=new_anchors, scoring=replace(CONFIG, second_stage=None)))
    errors = np.abs(np.array(values(both, "utility")) - np.array(values(full, "utility")))
    agreement = both.manifest()["reuse"]["agreement"]
    assert agreement["rows"] == 15  # what is scored anyway is no evidence
    assert errors[1::2].max() < 1e-4 < errors[::2].max() < 5 * agreement["standard_error"]


@pytest.mark.slow
def test_what_was_made_of_a_stored_run_can_be_asked_again(
    stored: Path, tmp_path: Path, request_for, new_anchors, anchor_dataset
) -> None:
    """And back: with the first anchors, utilities are the first ones within the error of two sketches."""
    there = tmp_path / "there"
    score_pool(request_for(there, anchors=new_anchors, reuse=stored))
    assert (there / "scores" / "second_look" / "round-3" / "proxy-1" / "finished").exists()
    back = score_pool(request_for(tmp_path / "back", reuse=there))
    before = ScoreTable(stored / "scores")
    error = back.manifest()["reuse"]["agreement"]["standard_error"]
    assert np.abs(np.array(values(back, "utility")) - np.array(values(before, "utility"))).max() < 5 * error
    assert values(back, "late_loss") == values(before, "late_loss")


@pytest.mark.slow
def test_rows_that_copy_a_new_anchor_are_left_out_and_former_copies_are_scored(
    tmp_path: Path, request_for, rows, anchor_dataset, scored_rows
) -> None:
    config = replace(CONFIG, second_stage=None)
    dropping = AnchorConfig(path="in memory", overlap="drop")
    old = datasets.concatenate_datasets([anchor_dataset.select(range(8)), rows.select([3])])
    new = datasets.concatenate_datasets([anchor_dataset.select(range(8)), rows.select([4])])
    first = request_for(tmp_path / "first", anchors=old, scoring=config)
    first = replace(first, anchors=Rows(old, dropping))
    statuses = values(score_pool(first), "status")
    assert [row for row, status in enumerate(statuses) if status == "anchor_overlap"] == [3]
    scored_rows.clear()
    again = replace(first, run_dir=tmp_path / "again", anchors=Rows(new, dropping), reuse=tmp_path / "first")
    table = score_pool(again).read().to_pylist()
    assert [row["row"] for row in table if row["status"] == "anchor_overlap"] == [4]
    assert (table[4]["utility"], table[4]["detail"]) == (None, "the row is also an anchor")
    assert [asked for name, asked in scored_rows if name == "scores"] == [[3]]
    assert table[3]["utility"] is not None


@pytest.mark.slow
@pytest.mark.parametrize("writes", [2, 9, 11])
def test_a_killed_run_ends_with_the_same_table(
    stored: Path, tmp_path: Path, request_for, new_anchors, rows, pool_dataset, monkeypatch, writes: int
) -> None:
    pool = datasets.concatenate_datasets([rows, pool_dataset.select(range(40, 44))])
    wanted = request_for(tmp_path / "whole", pool=pool, anchors=new_anchors, reuse=stored)
    whole = score_pool(wanted)
    write, written = ScoreTable.write_part, []

    def die(self: ScoreTable, part: pa.Table) -> None:
        if len(written) == writes:
            raise KeyboardInterrupt
        written.append(part)
        write(self, part)

    killed = replace(wanted, run_dir=tmp_path / "killed")
    monkeypatch.setattr(ScoreTable, "write_part", die)
    with pytest.raises(KeyboardInterrupt):
        score_pool(killed)
    monkeypatch.setattr(ScoreTable, "write_part", write)
    # Another run must not go on there.
    with pytest.raises(RunDirectoryError, match=r"holds scores of another run: reuse was '.*', now None"):
        score_pool(replace(killed, reuse=None))
    table = score_pool(killed)
    for column in ("example_id", "status", "sketch"):
        assert values(table, column)[:30] == values(whole, column)[:30]
    for column in ("utility", "late_loss"):
        np.testing.assert_allclose(values(table, column), values(whole, column), rtol=1e-3, atol=1e-6)
    noted = [each.manifest()["reuse"] for each in (table, whole)]
    assert noted[0]["agreement"] == pytest.approx(noted[1]["agreement"], rel=1e-3)
    assert noted[0]["rows_scored"] == noted[1]["rows_scored"] == 4


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"scoring": replace(CONFIG, sketch_size=64)},
            RunDirectoryError,
            r"was scored with other settings: scoring\.sketch_size was 512, now 64\. Take those of that run",
        ),
        (
            {"scoring": CONFIG.with_stage_options(rounds=2)},
            RunDirectoryError,
            r"scoring\.second_look\.rounds was 3, now 2",
        ),
        ({"scoring": replace(CONFIG, store=False)}, RunDirectoryError, r"scoring\.store was True, now False"),
        ({"encoding": EncodingConfig(max_length=99)}, RunDirectoryError, r"encoding\.max_length was 2048, now 99"),
        ({"proxy": {"lora_r": 4}}, RunDirectoryError, r"proxy\.lora_r was 8, now 4"),
        ({"prompt": "Be brief."}, RunDirectoryError, r"pool\.system_prompt was None, now 'Be brief\.'"),
    ],
)
def test_other_settings_are_refused_by_name(
    stored: Path, tmp_path: Path, request_for, changes, error, message: str, monkeypatch
) -> None:
    monkeypatch.setattr("ost_hf.scoring.runner.exclude_rows", None)  # before any row is read
    request = request_for(tmp_path / "again", reuse=stored)
    if "proxy" in changes:
        changes = {"proxy": replace(request.proxy, **changes["proxy"])}
    if "prompt" in changes:
        pool = Rows(request.pool.dataset, DatasetConfig(path="in memory", system_prompt=changes["prompt"]))
        changes = {"pool": pool}
    with pytest.raises(error, match=message):
        score_pool(replace(request, **changes))
    assert not (tmp_path / "again").exists()


def test_other_weights_are_refused(stored: Path, tmp_path: Path, request_for) -> None:
    other = shutil.copytree(stored, tmp_path / "other", ignore=shutil.ignore_patterns("proxy-*"))
    table = ScoreTable(other / "scores")
    table.add_to_manifest(weights={"dtype": "float32", "hash": "another"})
    with pytest.raises(RunDirectoryError, match=r"other settings: weights\.hash was 'another', now '\w+'"):
        score_pool(request_for(tmp_path / "again", reuse=other))


def test_a_run_that_cannot_be_asked_again_is_refused(
    stored: Path, tmp_path: Path, request_for, rows, proxy_config
) -> None:
    def refused(reuse: Path, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            score_pool(request_for(tmp_path / "again", reuse=reuse))

    refused(tmp_path / "none", RunDirectoryError, "reuse: there are no scores in .*none")
    refused(tmp_path / "again", ConfigError, "reuse names the run directory itself")
    random = ScoringRequest(tmp_path / "random", Rows(rows), None, proxy_config, ScoringConfig("random"))
    score_pool(random)
    refused(tmp_path / "random", RunDirectoryError, r"was scored without scoring\.store")
    cut = shutil.copytree(stored, tmp_path / "cut")
    next((cut / "scores").glob("part-*")).unlink()
    refused(cut, RunDirectoryError, "are not finished, or its proxy is gone")
    bare = shutil.copytree(stored, tmp_path / "bare", ignore=shutil.ignore_patterns("finished"))
    refused(bare, RunDirectoryError, r"round-2/proxy-0 is gone, which the second look asks")
    silent = shutil.copytree(stored, tmp_path / "silent", ignore=shutil.ignore_patterns("contents.parquet"))
    with pytest.raises(RunDirectoryError, match=r"has no contents\.parquet"):
        score_pool(request_for(tmp_path / "other", reuse=silent))


@pytest.mark.parametrize(
    ("scoring", "message"),
    [
        ({"one_step": {"utility": "raw"}}, "sketches give the utility mean_cosine against new anchors, not 'raw'"),
        ({"per_anchor": True}, r"scoring\.per_anchor cannot be had against new anchors"),
        ({"group_by": "operation"}, r"scoring\.group_by cannot be had against new anchors"),
    ],
)
def test_what_sketches_do_not_give_is_refused_for_new_anchors(
    stored: Path, tmp_path: Path, request_for, new_anchors, scoring: dict, message: str
) -> None:
    """With the same anchors it is scored of rows, and may be stored."""
    config = ScoringConfig.from_mapping({"store": True, **scoring})
    other = shutil.copytree(stored, tmp_path / "other", ignore=shutil.ignore_patterns("proxy-*"))
    table = ScoreTable(other / "scores")
    identity = table.manifest()["identity"] | {"scoring": json.loads(json.dumps(config.identity()))}
    table.write_manifest(identity, **{k: v for k, v in table.manifest().items() if k != "identity"})
    with pytest.raises(ConfigError, match=f"reuse: {message}"):
        score_pool(request_for(tmp_path / "again", anchors=new_anchors, scoring=config, reuse=other))


@pytest.mark.slow
def test_a_pool_without_a_known_row_is_scored_whole(
    stored: Path, tmp_path: Path, request_for, pool_dataset, new_anchors
) -> None:
    again = score_pool(request_for(tmp_path, pool_dataset.select(range(40, 44)), new_anchors, reuse=stored))
    noted = again.manifest()["reuse"]
    assert noted == {"run_dir": str(stored), "rows_stored": 0, "rows_scored": 4}
    assert all(values(again, "utility")) and all(values(again, "late_loss"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scorer": "random"}, r"scoring\.store keeps what one-step utilities .* not with 'random'"),
        ({"one_step": {"estimator": "exact", "utility": "raw"}}, "scoring.store goes with estimator 'reverse'"),
        ({"second_stage": "cascade", "one_step": {"utility": "raw"}}, "leave scoring.group_by, store, sketch_size"),
    ],
)
def test_only_what_can_be_asked_again_is_stored(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScoringConfig.from_mapping({"store": True, **settings})


def test_sizes_of_what_is_stored_can_be_set() -> None:
    assert (ScoringConfig(store=True).sketch_size, ScoringConfig(store=True).embedding_size) == (512, 256)
    assert ScoringConfig(store=True, sketch_size=64).sketch_size == 64
    assert ScoringConfig().sketch_size == 0
    assert ScoringConfig(store=True).without_extras() == ScoringConfig()
