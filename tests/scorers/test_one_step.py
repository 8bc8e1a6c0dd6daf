"""The one-step scorer: what it gives, and what it refuses."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import pytest
import torch
from scored import build_scorer, records

from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError, ModelError
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import Proxy, build_proxy
from ost_hf.scorers.one_step.estimators import ESTIMATORS
from ost_hf.scorers.one_step.options import OneStepOptions
from ost_hf.scorers.one_step.scorer import OneStepScorer
from ost_hf.scoring.config import SHARED, ScoringConfig

# What the scorer can be asked for beside its own options.
OF_THE_SECTION = (*SHARED, "batch_size", "batch_tokens", "seed")


def one_step(proxy: Proxy, anchors: EncodedDataset, **settings: Any) -> OneStepScorer:
    """The scorer with some options, and fields of the section."""
    section = {name: settings.pop(name) for name in OF_THE_SECTION if name in settings}
    return build_scorer(ScoringConfig(sections={"one_step": settings}, **section), proxy=proxy, anchors=anchors)


def encoded(pool: EncodedDataset, count: int) -> list[Any]:
    return [pool.encode(row) for row in range(count)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"utility": "raw"},
        {"utility": "raw", "update_rule": "sgd"},
        {"utility": "raw", "estimator": "forward"},
        {"utility": "raw", "estimator": "exact"},
    ],
)
def test_scores_hold_utility_and_loss(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, settings: dict[str, Any]
) -> None:
    scores = records(one_step(warm_proxy, anchors, **settings), encoded(pool, 4))
    assert len({score["utility"] for score in scores}) == 4
    assert all(score["loss"] > 0 for score in scores)


def test_per_anchor_gives_the_same_utility_and_its_standard_error(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset
) -> None:
    mean = records(one_step(warm_proxy, anchors), encoded(pool, 4))
    each = records(one_step(warm_proxy, anchors, per_anchor=True), encoded(pool, 4))
    for one, other in zip(mean, each, strict=True):
        assert one["utility"] == pytest.approx(other["utility"], rel=1e-4, abs=1e-6)
        assert "utility_se" not in one
        assert other["utility_se"] > 0


@pytest.mark.parametrize("settings", [{}, {"utility": "raw", "estimator": "exact"}])
def test_groups_and_standard_errors_are_those_of_the_anchors_utilities(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, settings: dict[str, Any]
) -> None:
    operations = np.array(anchors.rows.dataset["operation"])
    batch = encoded(pool, 2)
    each = records(one_step(warm_proxy, anchors, per_anchor=True, group_by="operation", **settings), batch)
    # Without per_anchor groups take another path.
    alone = records(one_step(warm_proxy, anchors, group_by="operation", **settings), batch)
    for score, other in zip(each, alone, strict=True):
        utilities = score["anchor_utilities"].astype(np.float64)
        assert score["utility"] == pytest.approx(utilities.mean(), rel=1e-3, abs=1e-9)
        assert score["utility_se"] == pytest.approx(utilities.std(ddof=1) / len(utilities) ** 0.5, rel=1e-3)
        for name in set(operations):
            mean = pytest.approx(utilities[operations == name].mean(), rel=1e-3, abs=1e-8)
            assert score[f"group:{name}"] == mean
            assert other[f"group:{name}"] == mean


def test_groups_of_an_unknown_column_are_refused(warm_proxy: Proxy, anchors: EncodedDataset) -> None:
    with pytest.raises(DataError, match=r"scoring\.group_by: the anchors have no column 'topic'; there are: "):
        one_step(warm_proxy, anchors, group_by="topic")


@pytest.mark.parametrize("settings", [{}, {"utility": "raw", "estimator": "exact"}])
def test_anchors_are_taken_fewer_at_a_time_when_memory_is_short(
    warm_proxy: Proxy,
    pool: EncodedDataset,
    anchors: EncodedDataset,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = records(one_step(warm_proxy, anchors, **settings), encoded(pool, 1))[0]["utility"]
    build = ESTIMATORS[settings.get("estimator", "reverse")]

    def on_a_small_device(config, options, proxy, anchor_set, rule):
        if max(batch["labels"].numel() for batch in anchor_set.batches) > 200:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return build(config, options, proxy, anchor_set, rule)

    monkeypatch.setitem(ESTIMATORS, settings.get("estimator", "reverse"), on_a_small_device)
    scorer = one_step(warm_proxy, anchors, **settings)
    assert scorer.batch_tokens == 128
    assert records(scorer, encoded(pool, 1))[0]["utility"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("asked", "size"), [(16, 16), (1000, 64)])
def test_vectors_have_at_most_the_size_asked_for_and_do_not_depend_on_the_batch(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, asked: int, size: int
) -> None:
    scorer = one_step(warm_proxy, anchors, embedding_size=asked)
    together = records(scorer, encoded(pool, 6))
    alone = [records(scorer, [row])[0] for row in encoded(pool, 6)]
    assert {score["embedding"].shape for score in together} == {(size,)}
    for one, other in zip(together, alone, strict=True):
        assert np.abs(one["embedding"] - other["embedding"]).max() < 1e-4
        assert one["utility"] == pytest.approx(other["utility"], abs=1e-5)
    kept = scorer.of_anchors({name: np.stack([score[name] for score in together]) for name in together[0]})
    assert kept is not None
    assert kept["embedding"].shape == (6, size)


def test_sketches_have_the_size_asked_for(warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset) -> None:
    scores = records(one_step(warm_proxy, anchors, sketch_size=16), encoded(pool, 2))
    assert [score["sketch"].shape for score in scores] == [(16,), (16,)]
    assert not np.array_equal(scores[0]["sketch"], scores[1]["sketch"])


@pytest.mark.slow
def test_forward_mode_is_refused_where_the_attention_kernel_has_none(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset
) -> None:
    settings = {"estimator": "forward", "utility": "raw"}
    with pytest.raises(ModelError, match=r"'forward_mode' is not possible: .*attn_implementation to eager"):
        one_step(warm_proxy, anchors, derivative="forward_mode", **settings)
    central = one_step(warm_proxy, anchors, **settings)
    assert central.facts["forward"]["derivative"] == "central"
    warm_proxy.model.set_attn_implementation("eager")
    forward_mode = one_step(warm_proxy, anchors, derivative="forward_mode", **settings)
    assert forward_mode.facts["forward"]["derivative"] == "forward_mode"
    rows = encoded(pool, 8)
    slopes = [np.array([score["utility"] for score in records(each, rows)]) for each in (central, forward_mode)]
    assert np.abs(slopes[0] - slopes[1]).max() < 0.02 * slopes[1].std(ddof=1)


@pytest.mark.slow
def test_useless_central_difference_is_refused(
    warm_proxy: Proxy, anchors: EncodedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Steps so short that float32 sees nothing of them.
    monkeypatch.setattr("ost_hf.functional.forward.STEP_SHARES", (1e-9,))
    with pytest.raises(ModelError, match=r"misses the true slopes by .* use 'reverse', or a proxy with dtype float32"):
        one_step(warm_proxy, anchors, estimator="forward", utility="raw", derivative="central")
    # By default forward mode is tried then, which SDPA's kernels have not.
    with pytest.raises(ModelError, match="misses the true slopes"):
        one_step(warm_proxy, anchors, estimator="forward", utility="raw")
    warm_proxy.model.set_attn_implementation("eager")
    facts = one_step(warm_proxy, anchors, estimator="forward", utility="raw").facts
    assert facts["forward"]["derivative"] == "forward_mode"


def test_cold_proxy_with_adamw_is_refused(vlm_path: str, anchors: EncodedDataset) -> None:
    cold = build_proxy(ProxyConfig(vlm_path, warmup_fraction=0))
    with pytest.raises(ModelError, match=r"the proxy is cold .*set scoring\.one_step\.update_rule to sgd"):
        one_step(cold, anchors)
    assert np.isfinite(records(one_step(cold, anchors, update_rule="sgd"), encoded(anchors, 1))[0]["loss"])


def test_unusable_anchor_is_an_error_that_names_it(warm_proxy: Proxy, processor: Any) -> None:
    rows = Rows(datasets.Dataset.from_dict({"question": ["1 + 1", "2 + 2"], "answer": ["answer: 2", ""]}))
    with pytest.raises(DataError, match=r"1 of 2 anchors cannot be used, such as row 1 \(no_labels"):
        one_step(warm_proxy, EncodedDataset(rows, Encoder(processor)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": "backward"}, r"scoring\.one_step\.estimator must be one of 'reverse', 'forward', 'exact', got"),
        # A second stage now.
        ({"estimator": "cascade"}, r"scoring\.one_step\.estimator must be one of 'reverse', 'forward', 'exact', got"),
        ({"estimator": "forward"}, "'mean_cosine' needs estimator 'reverse'"),
        ({"estimator": "exact"}, "goes with utility 'raw' or 'relative'"),
        ({"estimator": "forward", "utility": "raw", "update_rule": "lion"}, "'lion' has no rate for that"),
        ({"derivative": "backward"}, r"scoring\.one_step\.derivative must be one of 'auto', 'central', 'forward_mode'"),
        ({"utility": "cosine"}, r"scoring\.one_step\.utility must be one of"),
        ({"update_rule": "adam"}, "did you mean 'adamw'"),
        ({"learning_rate": 0.0}, r"scoring\.one_step\.learning_rate must be a number > 0, got 0\.0"),
    ],
)
def test_options_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OneStepOptions(**settings)


@pytest.mark.parametrize(
    ("options", "section", "message"),
    [
        ({"estimator": "forward", "utility": "raw"}, {"per_anchor": True}, "'forward' follows one direction"),
        ({"estimator": "forward", "utility": "raw"}, {"group_by": "topic"}, "'forward' follows one direction"),
        ({"estimator": "exact", "utility": "raw"}, {"sketch_size": 8}, "goes with estimator 'reverse'"),
    ],
)
def test_columns_that_an_estimator_cannot_give_are_refused(
    options: dict[str, Any], section: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ScoringConfig(sections={"one_step": options}, **section)
