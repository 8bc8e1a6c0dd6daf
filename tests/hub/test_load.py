"""A curated dataset comes back from the Hub as it was pushed, and is selected from and trained on there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from hub_stand_in import HubStandIn
from workplace import Workplace

import ost_hf
from ost_hf.data.rows import Rows
from ost_hf.hub.load import ADDED, Curated
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.runner import score_pool
from ost_hf.selection.kept import Selection
from ost_hf.tables.score_table import ScoreTable, p_value_anchors
from ost_hf.training.config import OSTConfig
from ost_hf.training.trainer import OSTTrainer

POOL_ROWS, KEPT_ROWS, BROKEN_ROW = 24, 9, 7


def without_added(kept: datasets.Dataset) -> datasets.Dataset:
    """The rows as the pool has them."""
    return kept.remove_columns([name for name in ADDED if name in kept.column_names])


@pytest.fixture(scope="module")
def pushed(
    tmp_path_factory: pytest.TempPathFactory,
    hub: HubStandIn,
    pool_dataset: datasets.Dataset,
    anchor_dataset: datasets.Dataset,
    vlm_path: str,
) -> Iterator[Workplace]:
    """A pool with a second look, one row of which has no picture that could be read, pushed to ``me/curated``."""
    place = Workplace(tmp_path_factory.mktemp("load"), hub)
    records = pool_dataset.select(range(POOL_ROWS)).cast_column("image", datasets.Image(decode=False)).to_list()
    records[BROKEN_ROW]["image"] = {"bytes": b"no image", "path": None}
    datasets.Dataset.from_list(records, features=pool_dataset.features).to_parquet(place.pool_path)
    scoring = {
        "second_stage": "second_look",
        "second_look": {"rounds": 1, "epochs": 0.1, "min_steps": 2, "batch_size": 4},
    }
    proxy = ProxyConfig(vlm_path, lora_r=2, warmup_min_steps=2, warmup_batch_size=4)
    request = ScoringRequest(
        place.run_dir, place.pool, Rows(anchor_dataset), proxy, ScoringConfig.from_mapping(scoring)
    )
    choose = ost_hf.select(score_pool(request), keep_count=KEPT_ROWS)
    choose.write(place.run_dir)
    done = place.push("--pool.path", str(place.pool_path), "--hub.repo_id", "me/curated")
    assert done.returncode == 0, done.stderr
    yield place
    place.close()


@pytest.fixture(scope="module")
def curated(pushed: Workplace) -> Curated:
    """What ``load_curated`` gave another process."""
    out = pushed.downloaded("curated_client.py", "me/curated")
    kept, scores = (datasets.load_from_disk(out / name) for name in ("kept", "scores"))
    return Curated(kept, scores, Selection.read(out))


@pytest.mark.slow
def test_kept_rows_and_scores_come_back_as_they_were(pushed: Workplace, curated: Curated) -> None:
    scores, selection = ScoreTable(pushed.run_dir / "scores").read(), Selection.read(pushed.run_dir)
    assert curated.scores.to_list() == scores.to_pylist()
    assert curated.kept["example_id"][:] == selection.kept["example_id"].to_pylist()
    wanted = selection.rows(pushed.pool)
    assert without_added(curated.kept).to_list() == wanted.to_list()


@pytest.mark.slow
def test_scores_say_how_many_anchors_their_p_values_were_made_with(curated: Curated, anchor_dataset: Any) -> None:
    table = curated.scores.with_format("arrow")[:]
    assert p_value_anchors(table) == len(anchor_dataset)
    assert {"corrupted_p", "late_loss"} <= set(table.column_names)


@pytest.mark.slow
def test_selection_that_comes_back_keeps_the_same_rows_in_the_same_order(pushed: Workplace, curated: Curated) -> None:
    before = Selection.read(pushed.run_dir).table.to_pylist()
    after = curated.selection.table.to_pylist()
    for name in ("example_id", "row", "utility", "kept"):
        assert [record[name] for record in after] == [record[name] for record in before]
    kept = [record["kept"] for record in before]
    assert kept.count(True) == KEPT_ROWS
    ranks = [record["rank"] if record["kept"] else None for record in before]
    assert [record["rank"] for record in after] == ranks
    assert {record["reason"] for record in after} == {"kept", "not kept"}


@pytest.mark.slow
def test_rows_are_selected_again_from_the_scores_that_come_back(pushed: Workplace, curated: Curated) -> None:
    again = ost_hf.select(curated.scores, keep_count=KEPT_ROWS)
    assert again.table.equals(Selection.read(pushed.run_dir).table)
    assert again.explanation == Selection.read(pushed.run_dir).explanation
    assert ost_hf.select(curated.scores, keep_count=KEPT_ROWS, order="top").kept_count == KEPT_ROWS


@pytest.mark.slow
@pytest.mark.parametrize("source", ["selection", "scores"])
def test_what_comes_back_is_trained_on(
    pushed: Workplace, curated: Curated, vlm_path: str, tmp_path: Path, source: str
) -> None:
    given = {"selection": curated.selection} if source == "selection" else {"scores": curated.scores}
    settings = {"keep_count": KEPT_ROWS} if source == "scores" else {}
    trainer = OSTTrainer(
        vlm_path,
        OSTConfig(str(tmp_path), max_steps=1, save_strategy="no", use_cpu=True, report_to=[], **settings),
        train_dataset=pushed.pool,
        **given,
    )
    assert trainer.train().metrics["train_rows_kept"] == KEPT_ROWS
    assert trainer.selection.rows(pushed.pool).to_list() == without_added(curated.kept).to_list()


@pytest.mark.slow
def test_kept_rows_are_trained_on_by_themselves(curated: Curated, vlm_path: str, tmp_path: Path) -> None:
    """They have the ids that the selection knows."""
    trainer = OSTTrainer(
        vlm_path,
        OSTConfig(str(tmp_path), max_steps=1, save_strategy="no", use_cpu=True, report_to=[], sampling="ranked"),
        train_dataset=curated.kept,
        selection=curated.selection,
    )
    assert trainer.train().metrics["train_rows_kept"] == KEPT_ROWS
    ranks = [curated.kept[place]["ost_rank"] for place in trainer._get_train_sampler()]
    assert ranks == sorted(ranks)


def test_aggregated_utilities_come_back_for_the_kept_rows() -> None:
    from ost_hf.hub.load import _selection_of

    scores = datasets.Dataset.from_dict({"example_id": ["a", "b", "c"], "row": [0, 1, 2], "utility": [0.1, None, 0.3]})
    kept = datasets.Dataset.from_dict({"example_id": ["c"], "ost_rank": [1], "ost_utility": [0.2]})
    table = _selection_of(kept, scores).table
    assert table["utility"].to_pylist() == [0.1, None, 0.2]
    assert table["kept"].to_pylist() == [False, False, True]
    assert "ost_weight" not in table.column_names
    table = _selection_of(kept.add_column("ost_weight", [0.7]), scores).table
    assert table["ost_weight"].to_pylist() == [None, None, 0.7]
    turned = kept.add_column("ost_turns", [3]).add_column("ost_masked_turns", [[0, 2]])
    table = _selection_of(turned, scores).table
    assert table["turns"].to_pylist() == [None, None, 3]
    assert table["masked_turns"].to_pylist() == [None, None, [0, 2]]
