"""LESS: against autograd and ``torch.optim``, one sample at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from scored import build_scorer, records
from torch.nn.functional import cosine_similarity, cross_entropy

from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import Encoded
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, ModelError
from ost_hf.models import load_processing_class
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import Proxy, build_proxy
from ost_hf.scorers.less import warmup as less_warmup
from ost_hf.scorers.less.options import LessOptions
from ost_hf.scorers.less.scorer import LessScorer
from ost_hf.scorers.less.warmup import Checkpoint, fresh_weights, holding, train_checkpoints
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.runner import score_pool
from ost_hf.tables.score_table import ScoreTable

WARMUP = {
    "warmup_fraction": 0.5,
    "warmup_min_steps": 6,
    "warmup_batch_size": 4,
    "warmup_learning_rate": 5e-3,
    "lora_r": 2,
}


@pytest.fixture(scope="module")
def text(text_path: str) -> tuple[Proxy, EncodedDataset, EncodedDataset]:
    """A text proxy in float64 with twelve candidates and four anchors of two kinds."""
    proxy = build_proxy(ProxyConfig(text_path, **WARMUP))
    proxy.model.double()
    encoder = Encoder(load_processing_class(proxy.config))

    def rows(table: dict[str, list[str]]) -> EncodedDataset:
        return EncodedDataset(Rows(datasets.Dataset.from_dict(table)), encoder)

    pool = rows(
        {
            "question": [f"What is {i} + {i}{' please' * (i % 4)}?" for i in range(12)],
            "answer": [f"It is {2 * i}{' of course' * (i % 3)}." for i in range(12)],
        }
    )
    anchors = rows(
        {
            "question": ["5 + 6", "1 and 8", "the largest of 3, 9", "the largest of two and one"],
            "answer": ["answer: 11", "answer: 9", "answer: 9", "answer: two"],
            "kind": ["sum", "sum", "max", "max"],
        }
    )
    return proxy, pool, anchors


def less(checkpoints: int = 4, projection: int = 8192, **more: Any) -> ScoringConfig:
    return ScoringConfig("less", sections={"less": LessOptions(checkpoints, projection)}, **more)


def build(proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, **settings: Any) -> LessScorer:
    scorer = build_scorer(less(**settings), proxy=proxy, pool=pool, anchors=anchors)
    assert isinstance(scorer, LessScorer)
    return scorer


def utilities(scorer: LessScorer, rows: list[Encoded]) -> np.ndarray:
    return np.array([score["utility"] for score in records(scorer, rows)])


def encoded(pool: EncodedDataset, rows: list[int]) -> list[Encoded]:
    return [pool.encode(row) for row in rows]


def gradient(proxy: Proxy, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One sample's gradient by autograd."""
    for parameter in proxy.parameters.values():
        parameter.requires_grad_(True)
    logits = proxy.model(input_ids=features["input_ids"][None]).logits[0]
    loss = cross_entropy(logits[:-1], features["labels"][1:], ignore_index=-100)
    gradients = torch.autograd.grad(loss, list(proxy.parameters.values()))
    for parameter in proxy.parameters.values():
        parameter.requires_grad_(False)
    return dict(zip(proxy.parameters, gradients, strict=True))


def adam_step(checkpoint: Checkpoint, gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    """What torch's AdamW takes from the parameters at unit learning rate."""
    moved = []
    for name, weight in checkpoint.weights.items():
        parameter = torch.nn.Parameter(torch.zeros_like(weight))
        optimizer = torch.optim.AdamW([parameter], lr=1.0, weight_decay=0.0)
        optimizer.state[parameter] = {
            "step": torch.tensor(float(checkpoint.adam.step)),
            "exp_avg": checkpoint.adam.exp_avg[name].clone(),
            "exp_avg_sq": checkpoint.adam.exp_avg_sq[name].clone(),
        }
        parameter.grad = gradients[name].clone()
        optimizer.step()
        moved.append(-parameter.detach().flatten())
    return torch.cat(moved)


def by_hand(
    proxy: Proxy, checkpoints: list[Checkpoint], row: dict[str, torch.Tensor], tasks: list[list[Any]]
) -> list[float]:
    """The formula, one sample, checkpoint and task at a time."""
    total = sum(checkpoint.learning_rate for checkpoint in checkpoints)
    influences = [0.0] * len(tasks)
    for checkpoint in checkpoints:
        with holding(proxy, checkpoint.weights):
            move = adam_step(checkpoint, gradient(proxy, row))
            for number, task in enumerate(tasks):
                each = [torch.cat([g.flatten() for g in gradient(proxy, anchor).values()]) for anchor in task]
                cosine = cosine_similarity(torch.stack(each).mean(0), move, dim=0)
                influences[number] += checkpoint.learning_rate / total * float(cosine)
    return influences


@pytest.mark.slow
def test_less_is_the_influence_by_autograd_and_torch_adamw(text: tuple[Proxy, EncodedDataset, EncodedDataset]) -> None:
    proxy, pool, anchors = text
    scorer = build(proxy, pool, anchors, checkpoints=3, projection=0, group_by="kind")
    checkpoints = [judge.checkpoint for judge in scorer.judges]
    tasks = [[anchors[2], anchors[3]], [anchors[0], anchors[1]]]
    for row, score in enumerate(records(scorer, encoded(pool, list(range(len(pool)))))):
        largest, addition = by_hand(proxy, checkpoints, pool[row], tasks)
        assert score["group:max"] == pytest.approx(largest, abs=1e-6)
        assert score["group:sum"] == pytest.approx(addition, abs=1e-6)
        assert score["utility"] == max(score["group:max"], score["group:sum"])
    one_task = build(proxy, pool, anchors, checkpoints=2, projection=0)
    score = records(one_task, encoded(pool, [5]))[0]
    checkpoints = [judge.checkpoint for judge in one_task.judges]
    together = by_hand(proxy, checkpoints, pool[5], [[anchors[i] for i in range(4)]])
    assert set(score) == {"utility", "loss"}
    assert score["utility"] == pytest.approx(together[0], abs=1e-6)


def test_loss_is_that_of_the_last_checkpoint(text: tuple[Proxy, EncodedDataset, EncodedDataset]) -> None:
    proxy, pool, anchors = text
    scorer = build(proxy, pool, anchors, checkpoints=2)
    with holding(proxy, scorer.judges[-1].checkpoint.weights):
        late = records(build_scorer(ScoringConfig("perplexity"), proxy=proxy), encoded(pool, [4]))
    assert records(scorer, encoded(pool, [4]))[0]["loss"] == pytest.approx(late[0]["loss"], rel=1e-6)


@pytest.mark.slow
def test_projection_keeps_the_influences(text: tuple[Proxy, EncodedDataset, EncodedDataset]) -> None:
    proxy, pool, anchors = text
    rows = encoded(pool, list(range(len(pool))))
    whole, projected, other = (
        utilities(build(proxy, pool, anchors, projection=size, seed=seed), rows)
        for size, seed in ((0, 0), (2**15, 0), (2**15, 1))
    )
    assert np.abs(whole - projected).max() < 0.05
    assert np.abs(whole - other).max() < 0.05
    assert not np.array_equal(projected, other)


@pytest.mark.slow
@pytest.mark.parametrize("projection", [0, 512])
def test_scores_do_not_depend_on_batch_size_padding_or_order(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, projection: int
) -> None:
    rows = encoded(pool, [0, 7, 13, 21, 34])
    assert len({row.length for row in rows}) > 1, "the rows should need padding"
    scorer = build(warm_proxy, pool, anchors, checkpoints=2, projection=projection)
    together = utilities(scorer, rows)
    alone = np.concatenate([utilities(scorer, [row]) for row in rows])
    backwards = utilities(scorer, rows[::-1])[::-1]
    assert np.abs(together - alone).max() < 1e-3 * together.std()
    assert np.abs(together - backwards).max() < 1e-3 * together.std()


def test_a_run_that_is_continued_goes_on_with_the_same_checkpoints(
    text: tuple[Proxy, EncodedDataset, EncodedDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, pool, anchors = text
    scoring = less(checkpoints=2, part_size=4)
    request = ScoringRequest(tmp_path, pool.rows, anchors.rows, proxy.config, scoring, pool.encoder.config)
    table = score_pool(request)
    whole = table.read()["utility"].to_numpy()
    sorted(table.folder.glob("part-*"))[1].unlink()
    monkeypatch.setattr(less_warmup, "train", None)
    again = score_pool(request).read()["utility"].to_numpy()
    np.testing.assert_allclose(again, whole, rtol=1e-4, atol=1e-6)
    # Of a run that stored no row they are nobody's.
    for part in table.folder.glob("part-*"):
        part.unlink()
    with pytest.raises(TypeError):
        score_pool(request)


def test_checkpoints_are_those_of_a_plain_loop(text: tuple[Proxy, EncodedDataset, EncodedDataset], monkeypatch) -> None:
    proxy, pool, _ = text
    seen: dict[str, Any] = {}

    def spied(model, parameters, rows, plan, *args, **kwargs):
        seen.update(batches=plan.batches, rates=plan.learning_rates)
        return train(model, parameters, rows, plan, *args, **kwargs)

    train = less_warmup.train
    monkeypatch.setattr(less_warmup, "train", spied)
    before = {name: parameter.detach().clone() for name, parameter in proxy.parameters.items()}
    checkpoints = train_checkpoints(proxy, pool, {0, 1, 2}, count=3, micro_batch_tokens=150)
    assert len(checkpoints) == 3
    # Six rows in batches of four are two steps an epoch.
    assert [checkpoint.adam.step for checkpoint in checkpoints] == [2, 4, 6]
    assert [len(batch) for batch in seen["batches"]] == [4] * 6
    assert not {0, 1, 2} & {row for batch in seen["batches"] for row in batch}
    assert all(torch.equal(parameter, before[name]) for name, parameter in proxy.parameters.items())
    assert not any(parameter.requires_grad for parameter in proxy.model.parameters())

    weights = {name: weight.requires_grad_(True) for name, weight in fresh_weights(proxy).items()}
    optimizer = torch.optim.AdamW(list(weights.values()), weight_decay=0.0)
    for step, (batch, rate) in enumerate(zip(seen["batches"], seen["rates"], strict=True)):
        with holding(proxy, {name: weight.detach() for name, weight in weights.items()}):
            each = [gradient(proxy, pool[row]) for row in batch]
        for name, weight in weights.items():
            weight.grad = torch.stack([gradients[name] for gradients in each]).mean(0)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        if step % 2:
            checkpoint = checkpoints[step // 2]
            assert checkpoint.learning_rate == pytest.approx((seen["rates"][step - 1] + rate) / 2)
            for name, weight in weights.items():
                moments = optimizer.state[weight]
                torch.testing.assert_close(checkpoint.weights[name], weight.detach(), rtol=1e-4, atol=1e-6)
                torch.testing.assert_close(checkpoint.adam.exp_avg[name], moments["exp_avg"], rtol=1e-4, atol=1e-8)
                torch.testing.assert_close(
                    checkpoint.adam.exp_avg_sq[name], moments["exp_avg_sq"], rtol=1e-4, atol=1e-12
                )


def test_a_small_pool_is_repeated_until_there_are_enough_steps(
    text: tuple[Proxy, EncodedDataset, EncodedDataset], text_path: str
) -> None:
    settings = {**WARMUP, "warmup_fraction": 0.1, "warmup_min_steps": 7}
    proxy = build_proxy(ProxyConfig(text_path, **settings))
    checkpoints = train_checkpoints(proxy, text[1], set(), count=2)
    assert [checkpoint.adam.step for checkpoint in checkpoints] == [4, 8]


def test_proxy_without_warm_up_rows_is_refused(text: tuple[Proxy, EncodedDataset, EncodedDataset], text_path) -> None:
    cold = build_proxy(ProxyConfig(text_path, warmup_fraction=0))
    with pytest.raises(ModelError, match=r"proxy\.warmup_fraction is 0: set it to a share of the pool"):
        build(cold, *text[1:])


@pytest.mark.parametrize(("field", "value", "least"), [("checkpoints", 0, 1), ("projection", -1, 0)])
def test_options_are_checked(field: str, value: Any, least: int) -> None:
    with pytest.raises(ConfigError, match=rf"scoring\.less\.{field} must be an integer >= {least}"):
        LessOptions(**{field: value})


@pytest.mark.slow
def test_a_pool_is_scored_and_a_killed_run_goes_on(
    tmp_path: Path, vlm_path: str, pool_dataset: datasets.Dataset, anchor_dataset: datasets.Dataset
) -> None:
    proxy = ProxyConfig(vlm_path, warmup_fraction=0.1, warmup_min_steps=4, warmup_batch_size=4)
    scoring = less(checkpoints=2, projection=256, group_by="operation", part_size=20)
    request = ScoringRequest(tmp_path, Rows(pool_dataset), Rows(anchor_dataset), proxy, scoring)
    table = score_pool(request)
    rows = table.read().to_pylist()
    assert [row["row"] for row in rows] == list(range(len(pool_dataset)))
    groups = {f"group:{name}" for name in anchor_dataset["operation"]}
    for row in rows:
        assert row["status"] == "ok"
        assert math.isfinite(row["loss"])
        assert -1 <= row["utility"] <= 1
        assert row["utility"] == max(row[name] for name in groups)
    next((tmp_path / "scores").glob("part-*")).unlink()
    score_pool(request)
    again = ScoreTable(tmp_path / "scores").read()["utility"].to_pylist()
    np.testing.assert_allclose(again, [row["utility"] for row in rows], rtol=1e-4)
