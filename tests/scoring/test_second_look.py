"""The second look."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from ost_hf.data.config import EncodingConfig
from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import Encoded
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, ModelError
from ost_hf.evidence.conformal import conformal_p, small_up_to
from ost_hf.evidence.late_loss import late_loss
from ost_hf.evidence.nonconformity import nonconformity
from ost_hf.models import ModelConfig, load_model
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.training import train
from ost_hf.scorers.losses import LossScorer
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringJob, ScoringRequest
from ost_hf.scoring.loop import run_scorer
from ost_hf.scoring.runner import score_pool
from ost_hf.scoring.second_look.cost import models_asked, planned_asking, planned_trainings
from ost_hf.scoring.second_look.learnt_from import (
    asked_in,
    best_rows,
    count_held_out,
    not_corrupted,
    with_first_p_values,
)
from ost_hf.scoring.second_look.options import SecondLookOptions
from ost_hf.scoring.second_look.proxies import load_mature_proxy, train_mature_proxy, training_steps
from ost_hf.scoring.second_look.rounds import fold
from ost_hf.tables.anchor_table import read_anchor_scores
from ost_hf.tables.columns import TableRows
from ost_hf.tables.score_table import ScoreTable

# The look of strategy thorough, with few steps.
OPTIONS = SecondLookOptions(
    cross_fit=True, learn_from="highest_utility", rounds=3, epochs=0.1, min_steps=3, max_steps=None, batch_size=6,
    learning_rate=1e-3,
)  # fmt: skip


@pytest.fixture(scope="module")
def pool_dataset(pool_dataset: datasets.Dataset) -> datasets.Dataset:
    """A half of it: every test trains several proxies."""
    return pool_dataset.select(range(30))


@pytest.fixture(scope="module")
def proxy_config(vlm_path: str) -> ProxyConfig:
    return ProxyConfig(vlm_path, warmup_fraction=0.1, warmup_min_steps=3, warmup_learning_rate=1e-3)


def scoring(utility: str = "mean_cosine", part_size: int = 512, **options: object) -> ScoringConfig:
    """A second look with other options than ``OPTIONS``."""
    sections = {"one_step": {"utility": utility}, "second_look": replace(OPTIONS, **options)}
    return ScoringConfig(second_stage="second_look", sections=sections, part_size=part_size)


@pytest.fixture(scope="module")
def request_for(pool_dataset, anchor_dataset, proxy_config):
    """Asks for the pool's scores in a folder."""

    def make(folder: Path, config: ScoringConfig, pool=pool_dataset, anchors=anchor_dataset) -> ScoringRequest:
        return ScoringRequest(folder, Rows(pool), Rows(anchors), proxy_config, config)

    return make


def job_of(pool: EncodedDataset, proxy: ProxyConfig, config: ScoringConfig) -> ScoringJob:
    """What proxies are trained and asked for, without a table."""
    return ScoringJob(pool, None, proxy, ScoreTable("none"), {}, config, Path("none"))


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, request_for) -> Path:
    folder = tmp_path_factory.mktemp("second_look")
    score_pool(request_for(folder, scoring(part_size=8)))
    return folder


@pytest.mark.slow
def test_every_row_has_both_looks(scored: Path, pool_dataset, anchor_dataset) -> None:
    table = ScoreTable(scored / "scores").read().to_pylist()
    assert [row["row"] for row in table] == list(range(len(pool_dataset)))
    assert all(-1 <= row["utility"] <= 1 and row["late_loss"] > 0 for row in table)
    assert all(1 / (len(anchor_dataset) + 1) <= row["corrupted_p"] <= 1 for row in table)


def losses_of(models: list, processor, rows: list[Encoded]) -> list[float]:
    """Late losses of rows under models together."""
    return LossScorer(partial(late_loss, models), processor, ScoringConfig()).score(rows)["loss"].tolist()


def p_values(table: ScoreTable, losses: list[float], anchor_losses: list[list[float]], pool_dataset) -> list[float]:
    """Slowly, of rows with late losses in the pool's order, by the stored utilities and the default weight."""
    weight, anchors, hashes = 0.25, read_anchor_scores(table), Rows(pool_dataset).content_hashes
    assert anchors is not None
    result = []
    for row, loss in zip(table.read().to_pylist(), losses, strict=True):
        of_anchors = anchor_losses[1 - fold(hashes[row["row"]], seed=0)]
        own, others = nonconformity([loss], [row["utility"]], of_anchors, anchors["utility"].to_numpy(), weight)
        result.append((1 + sum(other >= own[0] for other in others)) / (1 + len(others)))
    return result


@pytest.mark.slow
def test_p_values_are_those_of_the_stored_losses_and_utilities(scored: Path, pool_dataset, anchor_dataset) -> None:
    table = ScoreTable(scored / "scores")
    whole, second_look = table.read(), table.manifest()["second_look"]
    assert second_look["utility_weight"] == SecondLookOptions().utility_weight == 0.25
    # What a table says of itself where the anchors' own scores are not at hand.
    assert whole["p_value_anchors"].to_pylist() == [len(anchor_dataset)] * len(whole)
    expected = p_values(table, whole["late_loss"].to_pylist(), second_look["anchor_losses"], pool_dataset)
    assert whole["corrupted_p"].to_pylist() == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "count"), [({"utility": "raw"}, 6), ({"utility_weight": 0.0}, 6), ({}, 2), ({}, 1)]
)
def test_without_utilities_of_anchors_or_weight_p_values_are_of_losses_alone(
    tmp_path: Path, pool_dataset, anchor_dataset, request_for, settings: dict, count: int
) -> None:
    """Of two anchors each has the other's cosine: utilities that do not differ."""
    config = scoring(**settings, rounds=1)
    table = score_pool(request_for(tmp_path, config, anchors=anchor_dataset.select(range(count))))
    second_look, hashes = table.manifest()["second_look"], Rows(pool_dataset).content_hashes
    assert second_look["utility_weight"] == 0
    for row in table.read().to_pylist():
        losses = second_look["anchor_losses"][1 - fold(hashes[row["row"]], seed=0)]
        assert row["corrupted_p"] == pytest.approx(conformal_p([row["late_loss"]], losses)[0])


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_table(tmp_path: Path, scored: Path, anchor_dataset, request_for) -> None:
    shutil.copytree(scored, tmp_path / "run")
    whole = ScoreTable(scored / "scores").read()
    for part in list((tmp_path / "run" / "scores").glob("part-*"))[1:]:
        part.unlink()
    # One part of each round: proxies are trained again, the later rounds' on what the one before found.
    for number in (1, 2, 3):
        next((tmp_path / "run" / "scores" / "second_look" / f"round-{number}").glob("part-*")).unlink()
    score_pool(request_for(tmp_path / "run", scoring(part_size=8)))
    again = ScoreTable(tmp_path / "run" / "scores").read()
    assert again["example_id"] == whole["example_id"]
    np.testing.assert_allclose(again["late_loss"].to_numpy(), whole["late_loss"].to_numpy(), rtol=1e-4)
    # A loss near an anchor's may round to its other side.
    differences = np.abs(again["corrupted_p"].to_numpy() - whole["corrupted_p"].to_numpy())
    assert differences.max() <= 1.01 / (1 + len(anchor_dataset))


@pytest.mark.slow
def test_no_row_is_looked_at_by_a_proxy_that_was_trained_on_it(
    tmp_path: Path, pool_dataset, request_for, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are noted where they are trained on and where they are asked about; copies share a half."""
    doubled = datasets.concatenate_datasets([pool_dataset.select(range(20))] * 2)
    trained: list[set[str]] = []
    asked: list[set[str]] = []

    def noting_train(model, parameters, rows, plan):
        trained.append({rows.rows.content_hashes[row] for batch in plan.batches for row in batch})
        return train(model, parameters, rows, plan)

    def noting_run(scorer, job, rows, table):
        if isinstance(scorer, LossScorer):
            asked.append({job.pool.rows.content_hashes[row] for row in rows})
        return run_scorer(scorer, job, rows, table)

    monkeypatch.setattr("ost_hf.scoring.second_look.proxies.train", noting_train)
    monkeypatch.setattr("ost_hf.scoring.second_look.rounds.run_scorer", noting_run)
    score_pool(request_for(tmp_path, scoring(), pool=doubled))
    assert len(trained) == len(asked) == 6  # three rounds of two
    for learnt, questions in zip(trained, asked, strict=True):
        assert learnt
        assert questions
        assert not learnt & questions
    # The last round's rows are asked about by the second round's proxies too.
    assert not (trained[2] & asked[4] or trained[3] & asked[5])
    assert len(asked[0] | asked[1]) == len(asked[2] | asked[3]) == len(asked[4] | asked[5]) == 20


@pytest.mark.slow
def test_a_training_that_diverges_is_named(tmp_path: Path, request_for) -> None:
    with pytest.raises(ModelError, match=r"lower scoring\.second_look\.learning_rate"):
        score_pool(request_for(tmp_path, scoring(learning_rate=1e30)))


def test_best_rows_do_not_depend_on_order() -> None:
    generator = np.random.default_rng(0)
    utilities = enumerate(generator.random(40).round(1).tolist())
    records = [{"row": row, "example_id": f"id{row}", "utility": utility} for row, utility in utilities]
    best = best_rows(pa.Table.from_pylist(records), 0.3)
    assert best == best_rows(pa.Table.from_pylist(records[::-1]), 0.3)
    assert [records[row]["utility"] for row in best] == sorted((r["utility"] for r in records), reverse=True)[:12]


def test_rows_that_the_first_look_sets_apart_from_the_anchors_are_not_learnt_from() -> None:
    rows = pa.table({"utility": [0.4, 0.4, -0.4, -0.4], "loss": [1.0, 9.0, 1.0, 9.0]})
    anchors = pa.table({"utility": np.linspace(0.2, 0.6, 19), "loss": np.linspace(0.5, 1.5, 19)})
    found = with_first_p_values(rows, anchors, 0.5)
    assert found["found_corrupted"].to_pylist() == [False, True, True, True]
    without = with_first_p_values(rows, anchors.set_column(0, "utility", pa.nulls(19, pa.float64())), 0.5)
    assert without["found_corrupted"].to_pylist() == [False, True, False, True]


@pytest.mark.slow
def test_one_proxy_can_be_asked_about_all_rows(
    tmp_path: Path, scored: Path, request_for, pool_dataset, anchor_dataset
) -> None:
    config = scoring(cross_fit=False, rounds=1, learn_from="not_corrupted")
    table = score_pool(request_for(tmp_path, config)).read()
    halved = ScoreTable(scored / "scores").read()["utility"].to_pylist()
    assert table["utility"].to_pylist() == pytest.approx(halved, abs=1e-5)
    facts = ScoreTable(tmp_path / "scores").manifest()["second_look"]
    assert [len(losses) for losses in facts["anchor_losses"]] == [len(anchor_dataset)]
    anchors = read_anchor_scores(ScoreTable(tmp_path / "scores"))
    assert anchors is not None
    first = ScoreTable(tmp_path / "scores" / "first").read()
    learnable = [not each for each in table["held_out"].to_pylist()]
    assert sum(learnable) == len(learnable) - count_held_out(len(learnable), SecondLookOptions(cross_fit=False)) == 22
    left = not_corrupted(with_first_p_values(first.filter(pa.array(learnable)), anchors, 0.5))
    assert facts["rounds"][0]["rows_trained_on"] == [len(left)]
    of_rows, of_anchors = nonconformity(
        table["late_loss"], table["utility"], facts["anchor_losses"][0], anchors["utility"].to_numpy(), 0.25
    )
    assert table["corrupted_p"].to_pylist() == pytest.approx(conformal_p(of_rows, of_anchors).tolist())


def test_steps_are_bounded_whatever_the_pool() -> None:
    options = SecondLookOptions().of_pool(10_000)
    assert [training_steps(rows, options) for rows in (100, 10_000, 1_000_000)] == [130, 130, 130]
    assert planned_trainings(1_000_000, SecondLookOptions()) == (2, 260)
    # Proxies of a small pool share the steps: one would see every row of 1,000 nearly five times.
    assert planned_trainings(1_000, SecondLookOptions()) == (4, 260)
    assert planned_trainings(1_000, SecondLookOptions(cross_fit=False)) == (2, 260)


def test_a_round_before_the_last_asks_no_more_rows_than_the_next_can_use() -> None:
    options = SecondLookOptions(max_steps=10, batch_size=4).of_pool(1_000)
    rows = pa.table({"row": list(range(100)), "learnable": [row >= 25 for row in range(100)]})
    early = asked_in(rows, 1, options, seed=0)["row"].to_pylist()
    assert min(early) >= 25
    assert (len(early), early) == (60, sorted(set(early)))
    assert early != asked_in(rows, 1, options, seed=1)["row"].to_pylist()
    assert asked_in(rows, 2, options, seed=0) is rows
    assert len(asked_in(rows, 1, replace(options, max_steps=None), seed=0)) == 75
    assert planned_asking(100, options) == 60 + 100


@pytest.mark.slow
def test_a_pool_larger_than_the_steps_is_looked_at_in_full_by_the_last_round(tmp_path: Path, request_for) -> None:
    options = {"cross_fit": False, "rounds": 2, "max_steps": 2, "min_steps": 2, "learn_from": "not_corrupted"}
    table = score_pool(request_for(tmp_path, scoring(**options)))
    early = ScoreTable(table.folder / "second_look" / "round-1").rows_done()
    assert len(early) == round(1.5 * 2 * OPTIONS.batch_size) < len(table.read())
    assert table.read()["corrupted_p"].null_count == 0


@pytest.mark.slow
def test_the_second_round_learns_from_what_the_first_did_not_find_corrupted(scored: Path, pool_dataset) -> None:
    table = ScoreTable(scored / "scores")
    first = ScoreTable(table.folder / "second_look" / "round-1")
    anchor_losses = [json.loads((first.folder / f"anchors-{k}.json").read_text()) for k in OPTIONS.folds]
    hashes = Rows(pool_dataset).content_hashes
    clean = [0, 0]
    losses = first.read(complete=False)["loss"].to_pylist()
    for row, p in enumerate(p_values(table, losses, anchor_losses, pool_dataset)):
        clean[fold(hashes[row], seed=0)] += p > small_up_to(len(anchor_losses[0]))
    rounds = table.manifest()["second_look"]["rounds"]
    assert [record["rows_trained_on"] for record in rounds][1] == clean


def test_rows_that_are_not_corrupted_are_learnt_from_and_at_least_a_tenth() -> None:
    types = [("row", pa.int64()), ("example_id", pa.string()), ("loss", pa.float64()), ("p_value", pa.float64())]
    schema = pa.schema([*types, ("found_corrupted", pa.bool_())])

    def record(row: int, loss: float | None, p: float | None) -> dict[str, object]:
        corrupted = p is not None and p <= 0.05
        return {"row": row, "example_id": f"id{row:02}", "loss": loss, "p_value": p, "found_corrupted": corrupted}

    def learnt_from(records: list[dict[str, object]]) -> list[int]:
        return not_corrupted(pa.Table.from_pylist(records, schema=schema))

    records = [record(0, 3.0, 0.01), record(2, 1.0, 0.5), record(1, 2.0, 0.3), record(3, None, None)]
    assert learnt_from(records) == learnt_from(records[::-1]) == [1, 2]
    assert learnt_from([record(0, None, None)]) == []
    # By the loss where p-values are alike; but what passed is among them, though its loss be the highest.
    corrupted = [record(row, 50.0 - row, 0.01) for row in range(25)]
    assert learnt_from(corrupted) == [22, 23, 24]
    assert learnt_from([record(0, 99.0, 0.4), *corrupted[1:]]) == [0, 23, 24]


@pytest.mark.slow
def test_a_proxy_that_was_finished_before_the_kill_is_loaded(
    tmp_path: Path,
    scored: Path,
    pool_dataset,
    proxy_config,
    request_for,
    processor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed while the last proxies looked: what they learnt is not learnt again."""
    whole = ScoreTable(scored / "scores").read()
    kept: list[Path] = []

    def keep(path: Path) -> None:
        kept.append(path)

    with monkeypatch.context() as patched:
        patched.setattr("ost_hf.scoring.second_look.rounds.remove_mature_proxy", keep)
        score_pool(request_for(tmp_path, scoring(part_size=8)))
    # Of the first round, which no later one asks; then each half's of the second and the third.
    assert [f"{path.parent.name}/{path.name}" for path in kept] == [
        "round-1/proxy-0", "round-1/proxy-1",
        "round-2/proxy-0", "round-3/proxy-0",
        "round-2/proxy-1", "round-3/proxy-1",
    ]  # fmt: skip
    # What counts is the losses under both later proxies together.
    pool = EncodedDataset(Rows(pool_dataset), Encoder(processor, EncodingConfig()))
    models = [load_mature_proxy(path, job_of(pool, proxy_config, scoring())) for path in kept[2:4]]
    asked = [row for row, content in enumerate(pool.rows.content_hashes) if fold(content, seed=0) == 1]
    losses = losses_of(models, processor, [pool.encode(row) for row in asked])
    in_table = whole.sort_by("row")["late_loss"].to_numpy()[asked]
    np.testing.assert_allclose(losses, in_table, rtol=1e-4)

    for part in (tmp_path / "scores").glob("part-*"):
        part.unlink()
    for part in (tmp_path / "scores" / "second_look" / "round-3").glob("part-*"):
        part.unlink()

    def no_train(*arguments: object, **named: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("ost_hf.scoring.second_look.proxies.train", no_train)
    score_pool(request_for(tmp_path, scoring(part_size=8)))
    again = ScoreTable(tmp_path / "scores").read()
    np.testing.assert_allclose(again["late_loss"].to_numpy(), whole["late_loss"].to_numpy(), rtol=1e-4)
    assert not any(path.exists() for path in kept[2:])


@pytest.mark.slow
def test_a_row_without_a_loss_in_one_round_is_not_learnt_from_in_the_next(
    tmp_path: Path, request_for, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[list[int]] = []

    def noting(folder, name, seed, learnt_from, job):
        learnt.append(learnt_from)
        train_mature_proxy(folder, name, seed, learnt_from, job)

    def losing(scorer, job, rows, table):
        run_scorer(scorer, job, [row for row in rows if row != 3], table)
        if 3 in rows and table.folder.name == "round-1":
            lost = TableRows()
            lost.begin(job.pool.rows.example_ids[3], 3, 0, "non_finite", "lost")
            table.write_part(lost.table())
        elif 3 in rows:
            run_scorer(scorer, job, [3], table)

    monkeypatch.setattr("ost_hf.scoring.second_look.rounds.train_mature_proxy", noting)
    monkeypatch.setattr("ost_hf.scoring.second_look.rounds.run_scorer", losing)
    score_pool(request_for(tmp_path, scoring(share=1.0)))
    assert sum(3 in rows for rows in learnt[:2]) == 1
    assert not any(3 in rows for rows in learnt[2:4])
    assert ScoreTable(tmp_path / "scores").read().to_pylist()[3]["late_loss"] > 0


@pytest.mark.slow
def test_one_round_is_what_the_first_of_three_is(tmp_path: Path, scored: Path, request_for) -> None:
    score_pool(request_for(tmp_path, scoring(rounds=1)))
    one = ScoreTable(tmp_path / "scores").read().sort_by("row")
    first = ScoreTable(scored / "scores" / "second_look" / "round-1").read(complete=False).sort_by("row")
    np.testing.assert_allclose(one["late_loss"].to_numpy(), first["loss"].to_numpy(), rtol=1e-4)
    with pytest.raises(ConfigError, match=r"second_look\.rounds"):
        scoring(rounds=0)


@pytest.mark.slow
@pytest.mark.parametrize(("rounds", "asked"), [(1, 1), (2, 1), (3, 2)])
def test_the_last_round_asks_the_proxies_of_all_rounds_but_the_first(
    tmp_path: Path, pool_dataset, request_for, monkeypatch: pytest.MonkeyPatch, rounds: int, asked: int
) -> None:
    together: list[list[str]] = []

    def noting(scorer, job, rows, table):
        if isinstance(scorer, LossScorer):
            together.append(loaded.copy())
            loaded.clear()
        return run_scorer(scorer, job, rows, table)

    loaded: list[str] = []

    def loading(folder: Path, job: ScoringJob):
        loaded.append(folder.parent.name)
        return load_mature_proxy(folder, job)

    monkeypatch.setattr("ost_hf.scoring.second_look.rounds.run_scorer", noting)
    monkeypatch.setattr("ost_hf.scoring.second_look.rounds.load_mature_proxy", loading)
    # Nothing is found corrupted: the plan that the doctor's seconds are of.
    monkeypatch.setattr("ost_hf.scoring.second_look.rounds.small_up_to", lambda anchors: -1.0)
    options = replace(OPTIONS, rounds=rounds, epochs=1.0)
    table = score_pool(request_for(tmp_path, scoring(rounds=rounds, epochs=1.0)))
    assert sum(map(len, together)) == len(OPTIONS.folds) * models_asked(options)
    learnt_from = [rows for done in table.manifest()["second_look"]["rounds"] for rows in done["rows_trained_on"]]
    trainings, steps = planned_trainings(len(pool_dataset), options)
    assert len(learnt_from) == trainings
    # Halves are drawn, and one has a few rows more than the other.
    assert abs(sum(training_steps(rows, options) for rows in learnt_from) - steps) <= trainings
    assert len(together) == 2 * rounds
    assert together[-1] == together[-2] == [f"round-{number}" for number in range(rounds - asked + 1, rounds + 1)]
    assert not list((tmp_path / "scores").rglob("proxy-*"))


@pytest.mark.parametrize("trainable", ["all", "adapter"])
def test_a_proxy_is_read_as_it_was_trained(
    tmp_path: Path, pool_dataset, proxy_config, processor, monkeypatch: pytest.MonkeyPatch, trainable: str
) -> None:
    trained: list[float] = []
    pool = EncodedDataset(Rows(pool_dataset), Encoder(processor, EncodingConfig()))
    rows, job = [pool.encode(row) for row in range(4)], job_of(pool, proxy_config, scoring(trainable=trainable))

    def losses(model) -> list[float]:
        return losses_of([model.eval()], processor, rows)

    def noting(model, *arguments, **named):
        result = train(model, *arguments, **named)
        trained.extend(losses(model))
        return result

    monkeypatch.setattr("ost_hf.scoring.second_look.proxies.train", noting)
    train_mature_proxy(tmp_path / "proxy", "proxy", 0, list(range(20)), job)
    read = losses(load_mature_proxy(tmp_path / "proxy", job))
    np.testing.assert_allclose(read, trained, rtol=1e-5)
    assert not np.allclose(read, losses(load_model(proxy_config)), rtol=1e-3)


@pytest.mark.slow
def test_a_proxy_of_bfloat16_is_trained_in_mixed_precision_and_asked_in_bfloat16(
    tmp_path: Path, pool_dataset, proxy_config, processor
) -> None:
    pool = EncodedDataset(Rows(pool_dataset), Encoder(processor, EncodingConfig()))
    rows, losses = [pool.encode(row) for row in range(20)], {}
    for dtype in ("float32", "bfloat16"):
        job, folder = job_of(pool, replace(proxy_config, dtype=dtype), scoring(epochs=3.0)), tmp_path / dtype
        train_mature_proxy(folder, dtype, 0, list(range(20)), job)
        # Small steps would be lost in bfloat16.
        weights = load_file(folder / "model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
        model = load_mature_proxy(folder, job)
        assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
        losses[dtype] = losses_of([model], processor, rows)
        if dtype == "bfloat16":
            precise = load_file(tmp_path / "float32" / "model.safetensors")
            # Another rounding has been at work while training, not only in the answers.
            assert any(not torch.equal(weights[name], precise[name]) for name in weights)
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.1)
    assert losses["bfloat16"] != losses["float32"]


def test_losses_do_not_depend_on_the_batch(vlm_path: str, pool_dataset, processor) -> None:
    pool = EncodedDataset(Rows(pool_dataset), Encoder(processor, EncodingConfig()))
    models = [load_model(ModelConfig(vlm_path, dtype="float32")).eval() for _ in range(2)]
    for parameter in models[1].parameters():
        parameter.data.mul_(1.1)
    rows = [pool.encode(row) for row in range(8)]
    together = losses_of(models, processor, rows)
    alone = [losses_of(models, processor, [row])[0] for row in rows]
    torch.testing.assert_close(torch.tensor(together), torch.tensor(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_an_adapter_can_be_trained_in_place_of_all_weights(tmp_path: Path, anchor_dataset, request_for) -> None:
    score_pool(request_for(tmp_path, scoring(trainable="adapter")))
    assert all(ScoreTable(tmp_path / "scores").read()["late_loss"].to_pylist())
    rounds = sorted((tmp_path / "scores" / "second_look").iterdir())
    assert [path.name for path in rounds] == ["round-1", "round-2", "round-3"]
    for path in rounds:
        assert not list(path.glob("proxy-*"))
        assert len(json.loads((path / "anchors-0.json").read_text())) == len(anchor_dataset)


def test_it_follows_one_step_utilities_only() -> None:
    with pytest.raises(ConfigError, match=r"second_look follows a look at one-step utilities"):
        ScoringConfig(scorer="random", second_stage="second_look")
