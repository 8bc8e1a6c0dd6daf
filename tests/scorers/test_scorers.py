"""Scorers: what they give, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from ost_hf.data.encoding import EncodedDataset, Encoder
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError, ModelError
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import Proxy, build_proxy
from ost_hf.scorers import config as scorer_config
from ost_hf.scorers.base import SCORERS, Score, build_scorer, register
from ost_hf.scorers.inputs import mean_anchor_loss
from ost_hf.scorers.one_step.estimators import ESTIMATORS
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.runner import score_pool


def one_step(proxy: Proxy, anchors: EncodedDataset, **settings):
    return build_scorer("one_step", config=ScoringConfig(**settings), proxy=proxy, anchors=anchors)


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
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, settings
) -> None:
    batch = [pool.encode(row) for row in range(4)]
    scores = one_step(warm_proxy, anchors, **settings).score(batch)
    assert len(scores) == 4
    assert len({score.utility for score in scores}) == 4
    assert all(score.loss is not None and score.loss > 0 for score in scores)


def test_per_anchor_gives_the_same_utility_and_its_standard_error(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset
) -> None:
    batch = [pool.encode(row) for row in range(4)]
    mean = one_step(warm_proxy, anchors).score(batch)
    each = one_step(warm_proxy, anchors, per_anchor=True).score(batch)
    for one, other in zip(mean, each, strict=True):
        assert one.utility == pytest.approx(other.utility, rel=1e-4, abs=1e-6)
        assert one.utility_se is None
        assert other.utility_se is not None
        assert other.utility_se > 0


@pytest.mark.parametrize("settings", [{}, {"utility": "raw", "estimator": "exact"}])
def test_groups_and_standard_errors_are_those_of_the_anchors_utilities(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, settings
) -> None:
    operations = np.array(anchors.rows.dataset["operation"])
    batch = [pool.encode(0), pool.encode(1)]
    each = one_step(warm_proxy, anchors, per_anchor=True, group_by="operation", **settings).score(batch)
    # Without per_anchor groups take another path.
    alone = one_step(warm_proxy, anchors, group_by="operation", **settings).score(batch)
    for score, other in zip(each, alone, strict=True):
        utilities = np.array(score.anchor_utilities)
        assert score.utility == pytest.approx(utilities.mean(), rel=1e-3, abs=1e-9)
        assert score.utility_se == pytest.approx(utilities.std(ddof=1) / len(utilities) ** 0.5, rel=1e-3)
        for name in set(operations):
            mean = pytest.approx(utilities[operations == name].mean(), rel=1e-3, abs=1e-8)
            assert score.columns[f"group:{name}"] == mean
            assert other.columns[f"group:{name}"] == mean


def test_groups_of_an_unknown_column_are_refused(warm_proxy: Proxy, anchors: EncodedDataset) -> None:
    with pytest.raises(DataError, match=r"scoring\.group_by: the anchors have no column 'topic'; there are: "):
        one_step(warm_proxy, anchors, group_by="topic")


def test_cascade_scores_no_single_batches(warm_proxy: Proxy, anchors: EncodedDataset) -> None:
    with pytest.raises(ConfigError, match="'cascade' ranks a whole pool and cannot score single batches"):
        one_step(warm_proxy, anchors, estimator="cascade", utility="raw")


@pytest.mark.parametrize("settings", [{}, {"utility": "raw", "estimator": "exact"}])
def test_anchors_are_taken_fewer_at_a_time_when_memory_is_short(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = one_step(warm_proxy, anchors, **settings).score([pool.encode(0)])[0].utility
    build = ESTIMATORS[settings.get("estimator", "reverse")]

    def on_a_small_device(config, proxy, anchor_set, rule):
        if max(batch["labels"].numel() for batch in anchor_set.batches) > 200:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return build(config, proxy, anchor_set, rule)

    monkeypatch.setitem(ESTIMATORS, settings.get("estimator", "reverse"), on_a_small_device)
    scorer = one_step(warm_proxy, anchors, **settings)
    assert scorer.batch_tokens == 128
    assert scorer.score([pool.encode(0)])[0].utility == pytest.approx(expected, rel=1e-3)


def test_mean_anchor_loss_is_the_mean_of_each_anchors_loss(warm_proxy: Proxy, anchors: EncodedDataset) -> None:
    batch = [anchors.encode(row) for row in range(len(anchors))]
    scorer = build_scorer("perplexity", config=ScoringConfig("perplexity"), proxy=warm_proxy)
    losses = [score.loss for score in scorer.score(batch)]
    assert mean_anchor_loss(warm_proxy.model, anchors) == pytest.approx(np.mean(losses), rel=1e-5)


def test_sketches_have_the_size_asked_for(warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset) -> None:
    scores = one_step(warm_proxy, anchors, sketch_size=16).score([pool.encode(0), pool.encode(1)])
    assert [len(score.sketch or []) for score in scores] == [16, 16]
    assert scores[0].sketch != scores[1].sketch


def test_forward_mode_is_refused_where_the_attention_kernel_has_none(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset
) -> None:
    settings = {"estimator": "forward", "utility": "raw"}
    with pytest.raises(ModelError, match=r"'forward_mode' is not possible: .*attn_implementation to eager"):
        one_step(warm_proxy, anchors, derivative="forward_mode", **settings)
    central = one_step(warm_proxy, anchors, **settings)
    assert central.estimator.derivative == "central"
    warm_proxy.model.set_attn_implementation("eager")
    forward_mode = one_step(warm_proxy, anchors, derivative="forward_mode", **settings)
    assert forward_mode.estimator.derivative == "forward_mode"
    rows = [pool.encode(row) for row in range(8)]
    slopes = [torch.tensor([score.utility for score in each.score(rows)]) for each in (central, forward_mode)]
    assert (slopes[0] - slopes[1]).abs().max() < 0.02 * slopes[1].std()


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
    assert one_step(warm_proxy, anchors, estimator="forward", utility="raw").facts["forward"]["derivative"] == (
        "forward_mode"
    )


def test_random_scores_are_a_function_of_seed_and_id(pool: EncodedDataset) -> None:
    batch = [pool.encode(row) for row in range(10)]
    first, again, other = (
        [s.utility for s in build_scorer("random", config=ScoringConfig(scorer="random", seed=seed)).score(rows)]
        for seed, rows in ((0, batch), (0, batch[::-1]), (1, batch))
    )
    assert first == again[::-1]
    assert first != other
    assert all(0 <= utility < 1 for utility in first)


def test_cold_proxy_with_adamw_is_refused(vlm_path: str, anchors: EncodedDataset) -> None:
    cold = build_proxy(ProxyConfig(vlm_path, warmup_fraction=0))
    with pytest.raises(ModelError, match="the proxy is cold"):
        one_step(cold, anchors)
    assert one_step(cold, anchors, update_rule="sgd").score([anchors.encode(0)])[0].loss is not None


def test_unusable_anchor_is_an_error_that_names_it(warm_proxy: Proxy, processor) -> None:
    rows = Rows(datasets.Dataset.from_dict({"question": ["1 + 1", "2 + 2"], "answer": ["answer: 2", ""]}))
    with pytest.raises(DataError, match=r"1 of 2 anchors cannot be used, such as row 1 \(no_labels"):
        one_step(warm_proxy, EncodedDataset(rows, Encoder(processor)))


def test_users_scorer_joins_by_a_decorator(pool: EncodedDataset, vlm_path: str, tmp_path: Path) -> None:
    @register("tokens", needs=())
    class TokensScorer:
        def __init__(self, config, **unused):
            self.batch_size = config.batch_size

        def score(self, batch):
            return [Score(-float(row.length)) for row in batch]

    try:
        table = score_pool(
            tmp_path, pool.rows, None, ProxyConfig(vlm_path), ScoringConfig("tokens"), pool.encoder.config
        )
        assert table.read()["utility"].to_pylist() == [-pool.encode(row).length for row in range(len(pool))]
        assert table.manifest()["identity"]["scoring"]["scorer"] == "tokens"
    finally:
        del SCORERS["tokens"]


def test_unknown_scorer_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"unknown scorer 'one-step' \(did you mean 'one_step'\?\); there are:"):
        build_scorer("one-step", config=ScoringConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": "backward"}, "scoring.estimator must be one of 'reverse', 'forward', 'exact', 'cascade'"),
        ({"estimator": "forward"}, "'mean_cosine' needs estimator 'reverse'"),
        ({"estimator": "forward", "utility": "raw", "per_anchor": True}, "'forward' follows one direction"),
        ({"estimator": "forward", "utility": "raw", "group_by": "topic"}, "'forward' follows one direction"),
        ({"estimator": "exact", "utility": "raw", "sketch_size": 8}, "needs the candidates' gradients"),
        ({"estimator": "cascade", "utility": "raw", "group_by": "topic"}, "'cascade' mixes first-order and exact"),
        ({"derivative": "backward"}, "scoring.derivative must be one of 'auto', 'central', 'forward_mode'"),
        ({"utility": "cosine"}, "scoring.utility must be one of"),
        ({"update_rule": "adam"}, "did you mean 'adamw'"),
        ({"learning_rate": 0.0}, "scoring.learning_rate must be a number > 0, got 0.0"),
        ({"estimator": "exact"}, "goes with utility 'raw' or 'relative'"),
        ({"batch_size": 0}, "scoring.batch_size must be an integer >= 1"),
        ({"batch_tokens": 0}, "scoring.batch_tokens must be an integer >= 1"),
        ({"second_look_rounds": 2.5}, "scoring.second_look_rounds must be an integer >= 1, got 2.5"),
        ({"cascade_keep_ratio": 0}, "scoring.cascade_keep_ratio must be a number > 0"),
    ],
)
def test_configuration_is_checked(settings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScoringConfig(**settings)


def test_settings_that_a_scorer_does_not_read_are_named() -> None:
    asked = {"group_by": "topic", "per_anchor": True, "sketch_size": 8}
    assert ScoringConfig(**asked).idle == []
    assert ScoringConfig(scorer="rds", **asked).idle == ["scoring.sketch_size"]
    assert ScoringConfig(scorer="less", **asked).idle == ["scoring.per_anchor", "scoring.sketch_size"]
    assert ScoringConfig(scorer="length", utility="raw").idle == ["scoring.utility"]
    assert ScoringConfig(scorer="of_my_own", **asked).idle == []


def test_every_scorer_of_ours_is_known_by_what_it_reads() -> None:
    built_in = {name for name, registered in SCORERS.items() if registered.build.__module__.startswith("ost_hf.")}
    assert built_in == {"one_step", *scorer_config.ALSO_READ}
