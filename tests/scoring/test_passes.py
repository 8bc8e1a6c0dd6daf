"""What a run counts of its own cost, held against arithmetic by hand."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest

from ost_hf.data.rows import Rows
from ost_hf.doctor.plan import planned_cost
from ost_hf.functional.forward import STEP_SHARES
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scorers.one_step.estimators import passes_of, setup_passes_of
from ost_hf.scorers.registry import register
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.passes import Part, cost_in_words, cost_of_parts
from ost_hf.scoring.prepared_proxy import prepare_proxy
from ost_hf.scoring.runner import encoded_job, score_pool
from ost_hf.scoring.second_look.cost import planned_parts
from ost_hf.strategy import STRATEGIES
from ost_hf.tables.score_table import ScoreTable

ROWS, ANCHORS = 30, 12
LOOK = {"min_steps": 4, "batch_size": 6, "learning_rate": 1e-3}
WARM_UP = {"warmup_min_steps": 3, "warmup_batch_size": 4}

Record = dict[str, Any]


@pytest.fixture(scope="module")
def request_for(pool_dataset: datasets.Dataset, anchor_dataset: datasets.Dataset, vlm_path: str):
    """Asks for the scores of thirty rows against twelve anchors."""

    def make(folder: Path, proxy: Record | None = None, **scoring: Any) -> ScoringRequest:
        pool, anchors = Rows(pool_dataset.select(range(ROWS))), Rows(anchor_dataset)
        config = ScoringConfig.from_mapping(scoring)
        return ScoringRequest(folder, pool, anchors, ProxyConfig(vlm_path, **(WARM_UP | (proxy or {}))), config)

    return make


def parts_of(cost: Record) -> Record:
    """Row passes of each part that has some; what is tried for its memory depends on the device."""
    return {
        name: part["row_passes"]
        for name, part in cost["parts"].items()
        if part["row_passes"] and name != "trial_batches"
    }


def looking(**options: Any) -> Record:
    return {"second_stage": "second_look", "second_look": {**LOOK, **options}}


@pytest.fixture
def _nothing_is_found_corrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the rounds after the first learn from all rows, as is planned."""
    for module in ("rounds", "learnt_from"):
        monkeypatch.setattr(f"ost_hf.scoring.second_look.{module}.small_up_to", lambda anchors: -1.0)


@pytest.mark.slow
@pytest.mark.parametrize(("trainable", "update"), [("all", 3), ("adapter", 2)])
@pytest.mark.usefixtures("_nothing_is_found_corrupted")
def test_a_run_counts_what_arithmetic_says_and_what_was_planned(
    tmp_path: Path, request_for, trainable: str, update: int, caplog: pytest.LogCaptureFixture
) -> None:
    request = request_for(tmp_path, **looking(trainable=trainable, rounds=2, cross_fit=False))
    with caplog.at_level(logging.INFO, "ost_hf"):
        cost = score_pool(request).manifest()["cost"]
    # Each round learns from 22 of 30 rows in 4 steps of 6; the first asks one proxy about these, the last about all.
    assert parts_of(cost) == {
        "warm_up": 2 * 3 * 4,
        "set_up": 2 * ANCHORS,
        "anchors": (2 + 1 + 1) * ANCHORS,
        "first": 2 * ROWS,
        "second_look_training": update * (4 + 4) * 6,
        "second_look_asking": 22 + ROWS,
    }
    assert cost["rows"] == ROWS
    assert (cost["trainings"], cost["steps"]) == (1 + 2, 3 + 4 + 4)
    assert cost["row_passes"] == sum(part["row_passes"] for part in cost["parts"].values())
    assert cost["passes"] == pytest.approx(cost["row_passes"] / ROWS)
    assert cost["seconds"] == pytest.approx(sum(part["seconds"] for part in cost["parts"].values()))
    assert all(cost["parts"][name]["seconds"] > 0 for name in ("warm_up", "encoding", *parts_of(cost)))
    assert cost_in_words(cost) in caplog.messages

    job = encoded_job(request, {})
    parts = planned_parts(ROWS, ANCHORS, job.config.stage_options)
    plan = planned_cost(job.config, job.proxy, ROWS, ANCHORS, parts)
    assert plan is not None
    assert parts_of(plan) == parts_of(cost)
    assert (plan["trainings"], plan["steps"], plan["rows"]) == (cost["trainings"], cost["steps"], ROWS)


@pytest.mark.slow
@pytest.mark.usefixtures("_nothing_is_found_corrupted")
def test_three_rounds_of_two_proxies_cost_what_was_planned_but_for_the_halves(tmp_path: Path, request_for) -> None:
    request = request_for(tmp_path, **looking(epochs=2.0, **STRATEGIES["thorough"]["scoring"]["second_look"]))
    cost = score_pool(request).manifest()["cost"]
    job = encoded_job(request, {})
    parts = planned_parts(ROWS, ANCHORS, job.config.stage_options)
    plan = planned_cost(job.config, job.proxy, ROWS, ANCHORS, parts)
    assert plan is not None
    counted, planned = parts_of(cost), parts_of(plan)
    # One half has a few rows more than the other: a step of six more or fewer in each training.
    assert abs(counted.pop("second_look_training") - planned.pop("second_look_training")) <= 6 * 3 * 6
    assert counted == planned
    assert planned["second_look_asking"] == (1 + 1 + 2) * ROWS
    assert planned["anchors"] == 2 * ANCHORS + 2 * (1 + 1 + 2) * ANCHORS


@pytest.mark.slow
def test_a_killed_run_and_the_run_that_ends_it_are_counted_together(
    tmp_path: Path, request_for, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = ScoreTable.write_part

    def killed(table: ScoreTable, rows: Any) -> None:
        if rows["row"][0].as_py() == 20:
            raise KeyboardInterrupt
        written(table, rows)

    request = request_for(tmp_path, part_size=10)
    with monkeypatch.context() as patch:
        patch.setattr(ScoreTable, "write_part", killed)
        with pytest.raises(KeyboardInterrupt):
            score_pool(request)
    assert "cost" not in ScoreTable(tmp_path / "scores").manifest()
    table = score_pool(request)
    cost = table.manifest()["cost"]
    # The last ten rows and the set-up twice; the proxy was stored, and the anchors' own scores.
    assert parts_of(cost) == {
        "warm_up": 2 * 3 * 4,
        "set_up": 2 * 2 * ANCHORS,
        "anchors": 2 * ANCHORS,
        "scoring": 2 * (ROWS + 10),
    }
    assert cost["parts"]["warm_up"]["trainings"] == 1
    # Nothing is left to do: nothing is counted.
    assert score_pool(request).manifest()["cost"] == cost
    # A part that was lost is scored again.
    table = ScoreTable(shutil.copytree(tmp_path, tmp_path / "copy") / "scores")
    next(table.folder.glob("part-*")).unlink()
    again = score_pool(request_for(tmp_path / "copy", part_size=10)).manifest()["cost"]
    assert parts_of(again)["scoring"] == parts_of(cost)["scoring"] + 2 * 10
    assert again["seconds"] > cost["seconds"]


def test_the_warm_up_of_a_proxy_that_was_there_is_counted(tmp_path: Path, request_for) -> None:
    """The doctor leaves one."""
    request = request_for(tmp_path, scorer="perplexity")
    prepare_proxy(encoded_job(request, {}))
    cost = score_pool(request).manifest()["cost"]
    assert parts_of(cost) == {"warm_up": 2 * 3 * 4, "scoring": ROWS}
    assert (cost["trainings"], cost["steps"]) == (1, 3)


@pytest.mark.slow
def test_a_scoring_that_begins_anew_counts_anew(tmp_path: Path, request_for) -> None:
    request = request_for(tmp_path, scorer="perplexity")
    cost = score_pool(request).manifest()["cost"]
    for part in (tmp_path / "scores").glob("part-*"):
        part.unlink()
    assert parts_of(score_pool(request).manifest()["cost"]) == parts_of(cost)


@pytest.mark.slow
def test_the_cascade_counts_its_exact_steps(tmp_path: Path, request_for) -> None:
    stage = {"second_stage": "cascade", "cascade": {"calibration": 10, "band": 0.0, "keep_ratio": 0.5}}
    parts = parts_of(score_pool(request_for(tmp_path, one_step={"utility": "raw"}, **stage)).manifest()["cost"])
    assert parts["first"] == 2 * ROWS
    assert parts["exact"] == (2 + ANCHORS) * 10


def test_estimators_take_what_their_code_does() -> None:
    assert [passes_of(name, 100) for name in ("reverse", "forward", "exact")] == [2, 2, 102]
    assert [setup_passes_of(name, 100) for name in ("reverse", "exact")] == [200, 200]
    # 16 anchors: a backward pass of each, and two passes at each step that is tried.
    assert setup_passes_of("forward", 100) == 200 + 16 * (2 + 2 * len(STEP_SHARES))


def test_of_a_scorer_that_does_not_say_what_a_row_takes_seconds_are_told(tmp_path: Path, request_for) -> None:
    @register("silent")
    class Silent:
        batch_size = None

        def __init__(self, **unused: Any):
            pass

        def score(self, batch: list[Any]) -> list[float]:
            return [0.0] * len(batch)

    cost = score_pool(request_for(tmp_path / "silent", scorer="silent")).manifest()["cost"]
    assert cost["passes"] is None and cost["seconds"] > 0
    assert "its forward passes of the proxy are not known" in cost_in_words(cost)
    assert "what a row takes (scoring)" in cost_in_words(cost)
    cost = score_pool(request_for(tmp_path / "random", scorer="random")).manifest()["cost"]
    assert cost["passes"] == 0
    assert cost_in_words(cost).startswith("selection cost no forward pass of the proxy and ")


def test_words_of_a_cost() -> None:
    parts = {
        "second_look_training": Part(28_800, 20.0, trainings=2, steps=300),
        "first": Part(12_000, 8.0),
        "warm_up": Part(2_400, 2.0, trainings=1, steps=30),
        "encoding": Part(seconds=5.0),
        "mine": Part(600),
    }
    cost = cost_of_parts(parts, 6_000)
    assert cost_in_words(cost) == (
        "selection cost 7.3 forward passes of the proxy over the pool and 35 s: warm-up 0.4 (30 steps), first look 2, "
        "second look's training 4.8 (2 trainings, 300 steps), mine 0.1"
    )
    plan = cost_of_parts({"first": Part(12_000)}, 6_000)
    assert cost_in_words(plan, "will cost") == "will cost 2 forward passes of the proxy over the pool: first look 2"
