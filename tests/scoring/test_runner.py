"""The loop: complete tables, whatever happens on the way."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import task
import torch
from safetensors.torch import load_file, save_file

from ost_hf.data.config import AnchorConfig, EncodingConfig
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.errors import DataError, RunDirectoryError
from ost_hf.models import hash_of_weights
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import Proxy
from ost_hf.scorers.protocol import Score
from ost_hf.scorers.registry import SCORERS
from ost_hf.scoring import prepared_proxy
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.identity import identity_of
from ost_hf.scoring.job import ScoringJob, ScoringRequest
from ost_hf.scoring.loop import run_scorer
from ost_hf.scoring.runner import score_pool
from ost_hf.tables.anchor_table import anchor_file, read_anchor_scores
from ost_hf.tables.score_table import ScoreTable


def quick_proxy(vlm_path: str) -> ProxyConfig:
    return ProxyConfig(vlm_path, warmup_fraction=0.1, warmup_min_steps=3, warmup_batch_size=4)


def utilities(table: ScoreTable) -> np.ndarray:
    return np.array(table.read()["utility"].to_pylist(), dtype=float)


@pytest.fixture
def empty_table(tmp_path: Path, pool: EncodedDataset) -> ScoreTable:
    table = ScoreTable(tmp_path / "scores")
    table.write_manifest({}, rows=len(pool))
    return table


def fill(table: ScoreTable, scorer: Any, pool: EncodedDataset, config: ScoringConfig | None = None) -> None:
    """What a scorer says of every row of the pool."""
    job = ScoringJob(pool, None, ProxyConfig("none"), table, {}, config or ScoringConfig(), table.folder.parent)
    run_scorer(scorer, job, list(range(len(pool))))


def scored(table: ScoreTable, proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, **settings) -> np.ndarray:
    config = ScoringConfig.from_mapping(settings)
    build = SCORERS.find("one_step").build
    fill(table, build(config=config, options=config.options, proxy=proxy, anchors=anchors), pool, config)
    return utilities(table)


@pytest.mark.slow
@pytest.mark.parametrize("utility", ["mean_cosine", "raw"])
@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"batch_size": 60, "part_size": 60}, {"part_size": 7}])
def test_scores_do_not_depend_on_batch_size_or_parts(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, tmp_path: Path, utility: str, settings
) -> None:
    results = []
    for number, changed in enumerate(({}, settings)):
        table = ScoreTable(tmp_path / str(number))
        table.write_manifest({}, rows=len(pool))
        results.append(scored(table, warm_proxy, pool, anchors, one_step={"utility": utility}, **changed))
    assert np.abs(results[0] - results[1]).max() < 1e-4 * results[0].std()


def test_scores_do_not_depend_on_order(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, empty_table
) -> None:
    forward = scored(empty_table, warm_proxy, pool, anchors)
    order = np.random.RandomState(0).permutation(len(pool))
    shuffled = EncodedDataset(pool.rows.select(order.tolist()), pool.encoder)
    other = ScoreTable(empty_table.folder.parent / "shuffled")
    other.write_manifest({}, rows=len(pool))
    backward = scored(other, warm_proxy, shuffled, anchors)
    assert np.abs(forward[order] - backward).max() < 1e-4 * forward.std()
    ids = other.read()["example_id"].to_pylist()
    assert ids == [empty_table.read()["example_id"].to_pylist()[i] for i in order]


def test_scores_do_not_depend_on_loader_workers(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, tmp_path: Path
) -> None:
    results = []
    for workers in (0, 1):
        table = ScoreTable(tmp_path / str(workers))
        table.write_manifest({}, rows=len(pool))
        results.append(scored(table, warm_proxy, pool, anchors, num_workers=workers))
    assert np.array_equal(*results)


@pytest.mark.slow
def test_killed_run_continues_to_the_same_table(
    vlm_path: str, pool_dataset, anchor_dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, anchors = Rows(pool_dataset), Rows(anchor_dataset)
    config = ScoringConfig(part_size=10)
    whole = utilities(score_pool(ScoringRequest(tmp_path / "whole", pool, anchors, quick_proxy(vlm_path), config)))
    write, written = ScoreTable.write_part, []

    def die_at_third(self: ScoreTable, rows: pa.Table) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(rows)
        write(self, rows)

    monkeypatch.setattr(ScoreTable, "write_part", die_at_third)
    killed = ScoringRequest(tmp_path / "killed", pool, anchors, quick_proxy(vlm_path), config)
    with pytest.raises(KeyboardInterrupt):
        score_pool(killed)
    monkeypatch.setattr(ScoreTable, "write_part", write)
    table = ScoreTable(tmp_path / "killed" / "scores")
    assert len(table.rows_done()) == 20
    with pytest.raises(RunDirectoryError, match="20 of 60 rows; run the score stage again"):
        table.read()
    # Another batch and part size: they change speed, not the table.
    score_pool(replace(killed, scoring=ScoringConfig(part_size=16, batch_size=5)))
    assert np.abs(utilities(table) - whole).max() < 1e-4 * whole.std()


def test_finished_run_is_not_scored_again(
    vlm_path: str, pool_dataset, anchor_dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ScoringRequest(tmp_path, Rows(pool_dataset), Rows(anchor_dataset), quick_proxy(vlm_path))
    score_pool(request)
    monkeypatch.setattr(prepared_proxy, "build_proxy", None)
    monkeypatch.setattr(prepared_proxy, "load_proxy", None)
    score_pool(request)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"scoring": ScoringConfig(sections={"one_step": {"utility": "raw"}})},
            "scoring.one_step.utility was 'mean_cosine', now 'raw'",
        ),
        ({"encoding": EncodingConfig(max_length=99)}, "encoding.max_length was 2048, now 99"),
        ({"pool": 59}, "pool was"),
        ({"pool": "Be brief."}, r"system_prompts was None, now \{'pool': 'Be brief.', 'anchors': None\}"),
        ({"anchors": 11}, "anchors was"),
        (
            {"proxy": ProxyConfig("another", lora_r=4)},
            r"proxy.lora_r was 8, now 4; proxy.model was '.*', now 'another'",
        ),
    ],
)
def test_run_directory_of_another_configuration_is_refused(
    vlm_path: str, pool_dataset, anchor_dataset, tmp_path_factory, change, message: str
) -> None:
    folder = tmp_path_factory.mktemp("run")
    request = ScoringRequest(folder, Rows(pool_dataset), Rows(anchor_dataset), quick_proxy(vlm_path))
    table = ScoreTable(folder / "scores")
    table.write_manifest(identity_of(request), rows=60)
    ScoreTable(table.folder / "first").write_part(pa.table({"row": [0]}))
    before = (table.folder / "manifest.json").read_text()
    for name in {"pool", "anchors"} & set(change):
        new, rows = change[name], getattr(request, name)
        changed = (
            Rows(rows.dataset, replace(rows.config, system_prompt=new))
            if isinstance(new, str)
            else rows.select(range(new))
        )
        change = {**change, name: changed}
    with pytest.raises(RunDirectoryError, match=rf"holds scores of another run: .*{message}.*Choose another run_dir"):
        score_pool(replace(request, **change))
    assert (table.folder / "manifest.json").read_text() == before


@pytest.mark.slow
def test_table_is_finished_with_the_weights_that_it_was_begun_with(
    vlm_path: str, pool_dataset, anchor_dataset, tmp_path: Path
) -> None:
    base = shutil.copytree(vlm_path, tmp_path / "base")
    pool, anchors, proxy = Rows(pool_dataset), Rows(anchor_dataset), quick_proxy(str(base))
    run, config = tmp_path / "run", ScoringConfig(part_size=20)
    request = ScoringRequest(run, pool, anchors, proxy, config)
    table = score_pool(request)
    assert table.manifest()["weights"] == {"dtype": "float32", "hash": hash_of_weights(base)}
    last = max(table.folder.glob("part-*.parquet"))
    last.unlink()
    tensors = load_file(base / "model.safetensors")
    save_file({name: tensor * 1.5 for name, tensor in tensors.items()}, base / "model.safetensors", {"format": "pt"})
    for kept in ("scores", "proxy"):  # either is enough to tell
        other = shutil.copytree(run, tmp_path / kept)
        shutil.rmtree(other / ({"scores", "proxy"} - {kept}).pop())
        with pytest.raises(RunDirectoryError, match=rf"weights\.hash was '{hash_of_weights(Path(vlm_path))}', now '"):
            score_pool(replace(request, run_dir=other))
    with pytest.raises(RunDirectoryError, match=r"by other weights of .*: weights\.hash was .* Go on with those"):
        score_pool(request)
    shutil.copy(Path(vlm_path) / "model.safetensors", base)
    assert len(score_pool(request).rows_done()) == 60


def test_refused_run_that_stored_no_row_leaves_the_directory_to_the_next(
    vlm_path: str, pool_dataset: datasets.Dataset, anchor_dataset: datasets.Dataset, tmp_path: Path
) -> None:
    request = ScoringRequest(tmp_path, Rows(pool_dataset), Rows(anchor_dataset), quick_proxy(vlm_path))
    with pytest.raises(DataError, match=r"scoring\.column\.name: 'question' must hold numbers"):
        score_pool(replace(request, scoring=ScoringConfig("column", sections={"column": {"name": "question"}})))
    assert not list(tmp_path.iterdir())
    table = ScoreTable(tmp_path / "scores")
    table.write_manifest({"scoring": {"scorer": "one_step"}}, rows=60)
    anchor_file(table).write_bytes(b"of a run that was stopped")
    score_pool(replace(request, scoring=ScoringConfig("random")))
    assert table.manifest()["identity"]["scoring"]["scorer"] == "random"
    assert read_anchor_scores(table) is None
    with pytest.raises(RunDirectoryError, match="holds scores of another run"):
        score_pool(replace(request, scoring=ScoringConfig("length")))


def test_group_column_is_looked_for_before_the_warm_up(
    vlm_path: str, pool_dataset: datasets.Dataset, anchor_dataset: datasets.Dataset, tmp_path: Path
) -> None:
    config = ScoringConfig(group_by="topic")
    request = ScoringRequest(tmp_path, Rows(pool_dataset), Rows(anchor_dataset), quick_proxy(vlm_path), config)
    with pytest.raises(DataError, match=r"scoring\.group_by: the anchors have no column 'topic'; there are: "):
        score_pool(request)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_proxy_of_another_configuration_is_refused_when_the_scores_are_gone(
    vlm_path: str, pool_dataset: datasets.Dataset, anchor_dataset: datasets.Dataset, tmp_path: Path
) -> None:
    request = ScoringRequest(tmp_path, Rows(pool_dataset), Rows(anchor_dataset), quick_proxy(vlm_path))
    score_pool(request)
    shutil.rmtree(tmp_path / "scores")
    with pytest.raises(RunDirectoryError, match=r"holds a proxy of another run: proxy\.seed was 0, now 1"):
        score_pool(replace(request, proxy=replace(request.proxy, seed=1)))
    assert not (tmp_path / "scores").exists()
    score_pool(request)


def test_every_row_appears_once_with_a_utility_or_a_status(vlm_path: str, anchor_dataset, tmp_path: Path) -> None:
    rows = task.pool_rows(12, seed=5)
    records = task.as_dataset(rows).cast_column("image", datasets.Image(decode=False)).to_list()
    records[3]["image"] = {"bytes": b"not an image", "path": None}
    records[5]["answer"] = ""
    records[7]["image"] = None
    features = task.as_dataset(rows).features
    pool = Rows(datasets.Dataset.from_list(records, features=features))
    table = score_pool(ScoringRequest(tmp_path, pool, Rows(anchor_dataset), quick_proxy(vlm_path))).read()
    statuses = table["status"].to_pylist()
    assert table["row"].to_pylist() == list(range(12))
    assert [statuses[row] for row in (3, 5)] == ["bad_image", "no_labels"]
    for utility, status, detail in zip(
        table["utility"].to_pylist(), statuses, table["detail"].to_pylist(), strict=True
    ):
        assert (utility is not None) == (status == "ok")
        assert bool(detail) == (status != "ok")


def test_loss_that_is_not_a_number_becomes_a_status(pool: EncodedDataset, empty_table: ScoreTable) -> None:
    class Broken:
        batch_size = 4

        def score(self, batch):
            return [
                Score(float("nan") if row.row == 2 else 1.0, loss=float("inf") if row.row == 5 else 2.0)
                for row in batch
            ]

    fill(empty_table, Broken(), pool)
    table = empty_table.read().to_pylist()
    assert [record["row"] for record in table if record["status"] == "non_finite"] == [2, 5]
    assert table[2]["utility"] is None
    assert table[5]["utility"] is None
    assert table[5]["loss"] is None
    assert "loss inf" in table[5]["detail"]


def test_a_nan_that_reaches_the_whole_batch_is_only_its_own_rows(pool: EncodedDataset, empty_table: ScoreTable) -> None:
    class Spreading:
        batch_size = 4

        def score(self, batch):
            poisoned = any(row.row == 2 for row in batch)
            return [Score(float("nan") if poisoned else float(row.row)) for row in batch]

    fill(empty_table, Spreading(), pool)
    table = empty_table.read().to_pylist()
    assert [record["row"] for record in table if record["status"] == "non_finite"] == [2]
    assert [record["utility"] for record in table] == [None if row == 2 else float(row) for row in range(len(pool))]


def test_real_nan_loss_does_not_reach_its_neighbours(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, empty_table: ScoreTable
) -> None:
    class Poisoned(EncodedDataset):
        def encode(self, row: int):
            encoded = super().encode(row)
            if row == 4:
                features = {**encoded.features, "pixel_values": encoded.features["pixel_values"] * torch.nan}
                return type(encoded)(encoded.example_id, row, features=features)
            return encoded

    clean = ScoreTable(empty_table.folder.parent / "clean")
    clean.write_manifest({}, rows=len(pool))
    expected = scored(clean, warm_proxy, pool, anchors)
    got = scored(empty_table, warm_proxy, Poisoned(pool.rows, pool.encoder), anchors)
    assert empty_table.read()["status"].to_pylist()[4] == "non_finite"
    others = [row for row in range(len(pool)) if row != 4]
    assert np.abs(got[others] - expected[others]).max() < 1e-4 * expected.std()


def test_anchors_in_the_pool_are_refused_or_dropped(vlm_path: str, pool_dataset, tmp_path: Path) -> None:
    pool = Rows(pool_dataset)
    anchors = pool.select([4, 9])
    request = ScoringRequest(tmp_path / "a", pool, anchors, quick_proxy(vlm_path))
    with pytest.raises(DataError, match="2 rows of the pool are also anchors, such as row 4"):
        score_pool(request)
    assert not (tmp_path / "a" / "scores").exists()
    dropped = Rows(anchors.dataset, AnchorConfig("in memory", overlap="drop"))
    table = score_pool(replace(request, run_dir=tmp_path / "b", anchors=dropped)).read()
    statuses = table["status"].to_pylist()
    assert [row for row, status in enumerate(statuses) if status == "anchor_overlap"] == [4, 9]


def test_missing_anchors_are_an_error_but_not_for_the_random_scorer(
    vlm_path: str, pool_dataset, tmp_path: Path
) -> None:
    pool = Rows(pool_dataset)
    with pytest.raises(DataError, match="the one_step scorer needs anchors"):
        score_pool(ScoringRequest(tmp_path, pool, None, quick_proxy(vlm_path)))
    table = score_pool(ScoringRequest(tmp_path, pool, None, quick_proxy(vlm_path), ScoringConfig("random")))
    assert len(table.read()) == 60
    assert not (tmp_path / "proxy").exists()


def test_table_is_parquet_with_a_manifest_that_names_versions(vlm_path: str, pool_dataset, tmp_path: Path) -> None:
    config = ScoringConfig("random", part_size=25)
    table = score_pool(ScoringRequest(tmp_path, Rows(pool_dataset), None, quick_proxy(vlm_path), config))
    assert sorted(path.name for path in table.folder.iterdir()) == [
        "cost", "manifest.json", "part-0000000000.parquet", "part-0000000025.parquet", "part-0000000050.parquet",
    ]  # fmt: skip
    assert pq.read_schema(table.folder / "part-0000000000.parquet").names == [
        "example_id", "row", "utility", "utility_se", "loss", "tokens", "status", "detail",
    ]  # fmt: skip
    manifest = json.loads((table.folder / "manifest.json").read_text())
    assert manifest["rows"] == 60
    assert set(manifest["versions"]) >= {"ost-hf", "torch", "transformers", "peft"}


def test_scores_of_anchors_of_other_groups_are_refused(
    pool: EncodedDataset, anchors: EncodedDataset, tmp_path: Path, vlm_path: str
) -> None:
    config = ScoringConfig("rds", group_by="topic")

    def score(topics: list[str]) -> None:
        grouped = Rows(anchors.rows.dataset.add_column("topic", topics), anchors.rows.config)  # type: ignore[call-arg]
        score_pool(ScoringRequest(tmp_path, pool.rows, grouped, quick_proxy(vlm_path), config, pool.encoder.config))

    topics = ["a", "b"] * (len(anchors) // 2)
    score(topics)
    with pytest.raises(RunDirectoryError, match="group_by_digest"):
        score(topics[::-1])


@pytest.mark.slow
@pytest.mark.parametrize("second_look", [False, True])
def test_manifest_says_how_the_forward_estimator_differentiates(
    pool: EncodedDataset, anchors: EncodedDataset, tmp_path: Path, vlm_path: str, second_look: bool
) -> None:
    settings: dict[str, Any] = {"one_step": {"estimator": "forward", "utility": "raw", "derivative": "central"}}
    if second_look:
        settings |= {"second_stage": "second_look", "second_look": {"rounds": 1, "min_steps": 1}}
    config, proxy = ScoringConfig.from_mapping(settings), quick_proxy(vlm_path)
    table = score_pool(ScoringRequest(tmp_path, pool.rows, anchors.rows, proxy, config, pool.encoder.config))
    found = table.manifest()["scorer"]["forward"]
    assert found["derivative"] == "central"
    assert found["central_step"] > 0
    assert 0 <= found["central_error_on_anchors"] < 0.5
    assert table.manifest()["rows"] == len(pool)


def test_scores_of_a_column_that_changed_are_refused(pool: EncodedDataset, tmp_path: Path, vlm_path: str) -> None:
    config = ScoringConfig("column", sections={"column": {"name": "rating"}})

    def score(ratings: list[float]) -> None:
        rated = Rows(pool.rows.dataset.add_column("rating", ratings), pool.rows.config)  # type: ignore[call-arg]
        score_pool(ScoringRequest(tmp_path, rated, None, quick_proxy(vlm_path), config, pool.encoder.config))

    ratings = [float(row) for row in range(len(pool))]
    score(ratings)
    score(ratings)
    with pytest.raises(RunDirectoryError, match="column_digest"):
        score(ratings[::-1])


def test_rows_without_a_score_are_told_in_one_sentence(
    vlm_path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "ost_hf")
    records = [{"question": "q", "answer": answer} for answer in ("a", None, "", None)]
    score_pool(
        ScoringRequest(
            tmp_path, Rows(datasets.Dataset.from_list(records)), None, ProxyConfig(vlm_path), ScoringConfig("random")
        )
    )
    assert caplog.messages == [
        "3 rows have no score: 2 bad_row, such as row 1 (expected text or a list of messages, got NoneType); "
        "1 no_labels, such as row 2 (no answer tokens to supervise)"
    ]
