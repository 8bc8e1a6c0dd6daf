"""Cascade: first order on all rows, exact steps around the cut-off."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

from ost_hf.data.rows import Rows
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.errors import ConfigError
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.cascade.options import CascadeOptions
from ost_hf.scoring.cascade.run import Agreement, agree, band_rows, calibration_rows
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.runner import score_pool
from ost_hf.selection.config import SelectionConfig
from ost_hf.strategy import resolve
from ost_hf.tables.score_table import ScoreTable

OPTIONS = CascadeOptions(calibration=10, band=0.2)
CASCADE = ScoringConfig(
    second_stage="cascade", sections={"one_step": {"utility": "raw"}, "cascade": OPTIONS}, part_size=16
)


def quick_proxy(path: str) -> ProxyConfig:
    return ProxyConfig(path, warmup_min_steps=3, warmup_batch_size=8)


def costly_rows(first_order: dict[int, float], pool_size: int) -> set[int]:
    return band_rows(first_order, pool_size, OPTIONS) | calibration_rows(first_order, OPTIONS.calibration, CASCADE.seed)


@pytest.fixture(scope="module")
def run_dir(
    tmp_path_factory: pytest.TempPathFactory,
    vlm_path: str,
    pool_dataset: datasets.Dataset,
    anchor_dataset: datasets.Dataset,
) -> Path:
    folder = tmp_path_factory.mktemp("cascade")
    score_pool(ScoringRequest(folder, Rows(pool_dataset), Rows(anchor_dataset), quick_proxy(vlm_path), CASCADE))
    return folder


@pytest.mark.slow
def test_every_row_stands_in_the_table_once_with_its_best_utility(run_dir: Path) -> None:
    records = ScoreTable(run_dir / "scores").read().to_pylist()
    assert [record["row"] for record in records] == list(range(60))
    agreement = ScoreTable(run_dir / "scores").manifest()["cascade"]
    exact = [record for record in records if record["utility_exact"] is not None]
    assert len(exact) == agreement["exact_rows"]
    assert all(record["utility"] == record["utility_exact"] for record in exact)
    for record in records:
        if record["utility_exact"] is None:
            assert record["utility"] == pytest.approx(agreement["slope"] * record["utility_first_order"])


@pytest.mark.slow
def test_exact_steps_cover_the_band_and_the_sample(run_dir: Path) -> None:
    records = ScoreTable(run_dir / "scores").read().to_pylist()
    first_order = {record["row"]: record["utility_first_order"] for record in records}
    exact = {record["row"] for record in records if record["utility_exact"] is not None}
    assert exact == costly_rows(first_order, 60)
    order = sorted(first_order, key=lambda row: -first_order[row])
    assert set(order[24:36]) <= exact


@pytest.mark.slow
def test_the_cut_is_where_the_selection_will_cut(
    tmp_path: Path, vlm_path: str, pool_dataset: datasets.Dataset, anchor_dataset: datasets.Dataset
) -> None:
    """Copies that are dropped are no part of the pool of which a share is kept."""
    twice = datasets.concatenate_datasets([pool_dataset, pool_dataset.select(range(20))])
    request = ScoringRequest(
        tmp_path,
        Rows(twice),
        Rows(anchor_dataset),
        quick_proxy(vlm_path),
        CASCADE,
        duplicates=DuplicatesConfig(within_pool="drop"),
    )
    table = score_pool(request)
    records = table.read().to_pylist()
    assert table.manifest()["cascade"]["kept"] == 30
    first_order = {r["row"]: r["utility_first_order"] for r in records if r["utility_first_order"] is not None}
    assert len(first_order) == 60
    exact = {record["row"] for record in records if record["utility_exact"] is not None}
    assert exact == costly_rows(first_order, 60)


def test_a_cut_that_is_no_share_is_asked_for() -> None:
    def keep_ratio(scoring: ScoringConfig, selection: SelectionConfig) -> float | None:
        return resolve("one_step", scoring=scoring, selection=selection).scoring.stage_options.keep_ratio

    assert keep_ratio(CASCADE, SelectionConfig(keep_ratio=0.2)) == 0.2
    assert keep_ratio(CASCADE, SelectionConfig()) is None
    assert resolve("one_step", selection={"keep_ratio": 0.2}).scoring == ScoringConfig()
    cuts = SelectionConfig(keep_count=100, balance_by="source")
    with pytest.raises(ConfigError, match=r"selection\.keep_count and selection\.balance_by cut elsewhere"):
        keep_ratio(CASCADE, cuts)
    assert keep_ratio(CASCADE.with_stage_options(keep_ratio=0.1), cuts) == 0.1


@pytest.mark.slow
def test_manifest_says_how_far_the_two_agree(run_dir: Path) -> None:
    records = ScoreTable(run_dir / "scores").read().to_pylist()
    agreement = Agreement(**ScoreTable(run_dir / "scores").manifest()["cascade"])
    first_order = {record["row"]: record["utility_first_order"] for record in records}
    sample = calibration_rows(first_order, OPTIONS.calibration, CASCADE.seed)
    pairs = [(r["utility_first_order"], r["utility_exact"]) for r in records if r["row"] in sample]
    assert agreement.spearman == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic)
    assert agreement.spearman > 0.9
    assert agreement.slope == pytest.approx(1, abs=0.2)
    assert 0.9 <= agreement.kept_overlap <= 1
    assert (agreement.calibration_rows, agreement.kept) == (10, 30)
    assert f"Spearman {agreement.spearman:.4f} with exact on 10 random rows" in str(agreement)


@pytest.mark.slow
def test_scores_do_not_depend_on_being_killed_and_resumed(
    run_dir: Path, tmp_path: Path, vlm_path: str, pool_dataset: datasets.Dataset, anchor_dataset: datasets.Dataset
) -> None:
    request = ScoringRequest(tmp_path, Rows(pool_dataset), Rows(anchor_dataset), quick_proxy(vlm_path), CASCADE)
    score_pool(request)
    parts = sorted(path.relative_to(tmp_path) for path in (tmp_path / "scores").rglob("part-*.parquet"))
    # As if it had been killed at three places: within the first table, the second, and the last.
    for name in (parts[0], parts[-1], *(p for p in parts if p.parent.name == "first" and p != parts[0])):
        (tmp_path / name).unlink()
    score_pool(request)
    names = ("utility", "utility_first_order", "utility_exact")
    expected, table = (ScoreTable(folder / "scores").read().to_pylist() for folder in (run_dir, tmp_path))
    for one, other in zip(expected, table, strict=True):
        assert one["example_id"] == other["example_id"]
        for name in names:
            assert one[name] == (None if other[name] is None else pytest.approx(other[name], rel=1e-3))
    written = pq.read_table(tmp_path / parts[0])
    assert written.num_rows > 0
    assert json.loads((tmp_path / "scores" / "manifest.json").read_text())["rows"] == 60


def test_agreement_counts_moves_and_overlap() -> None:
    first_order = {0: 4.0, 1: 3.0, 2: 2.0, 3: 1.0}
    final = {0: 4.0, 1: 1.5, 2: 2.0, 3: 1.0}
    agreement = agree(first_order, {1: 1.5, 2: 2.0}, final, {1, 2}, 2, 1.0)
    assert agreement == Agreement(2, 2, pytest.approx(-1.0), 1.0, 2, 0.5, 2, 1)
