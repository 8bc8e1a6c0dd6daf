"""The warm-up."""

from __future__ import annotations

import copy

import datasets
import pytest
import torch

from ost_hf.data.collator import Collator
from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError
from ost_hf.functional.exact import sample_gradient
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import build_proxy
from ost_hf.proxy.warmup import warm_up, warmup_rows


@pytest.fixture(scope="module")
def cold(vlm_path: str):
    return build_proxy(ProxyConfig(vlm_path, warmup_fraction=0.2, warmup_min_steps=4, warmup_batch_size=6))


@pytest.mark.slow
def test_warm_up_lowers_the_loss_and_keeps_the_moments(vlm_path: str, pool: EncodedDataset) -> None:
    proxy = build_proxy(ProxyConfig(vlm_path, warmup_fraction=0.2, warmup_min_steps=15, warmup_learning_rate=2e-3))
    losses = warm_up(proxy, pool, exclude=set())
    assert len(losses) == 15
    assert losses[-1] < losses[0]
    assert proxy.adam is not None
    assert proxy.adam.step == 15
    assert set(proxy.adam.exp_avg) == set(proxy.parameters)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in proxy.parameters.values())


def test_warm_up_does_not_depend_on_micro_batches(cold, pool: EncodedDataset) -> None:
    weights = []
    for tokens in (1, 150, 1000):
        proxy = copy.deepcopy(cold)
        warm_up(proxy, pool, set(), tokens)
        weights.append(torch.cat([p.flatten() for p in proxy.parameters.values()]))
    for others in weights[1:]:
        torch.testing.assert_close(others, weights[0], rtol=1e-4, atol=1e-6)


def test_moments_are_those_of_plain_adamw_gradients(cold, pool: EncodedDataset) -> None:
    proxy = copy.deepcopy(cold)
    proxy.config = ProxyConfig(cold.config.model, warmup_fraction=0.1, warmup_min_steps=1, warmup_batch_size=6)
    collate = Collator.of(proxy.processing_class)
    # Six rows are the one batch.
    rows = [collate([pool[row]]) for row in warmup_rows(pool, 0.1, set(), proxy.config.seed)]
    gradients = [sample_gradient(proxy.model, proxy.parameters, row)[1] for row in rows]
    assert len(gradients) == 6
    warm_up(proxy, pool, set())
    assert proxy.adam is not None
    for name, mean in proxy.adam.exp_avg.items():
        # After one step m = (1 - b1) g and v = (1 - b2) g^2.
        gradient = torch.stack([each[name] for each in gradients]).mean(0)
        torch.testing.assert_close(mean, 0.1 * gradient, rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(proxy.adam.exp_avg_sq[name], 0.001 * gradient**2, rtol=2e-3, atol=1e-10)


def test_rows_are_a_seeded_share_without_the_excluded(pool: EncodedDataset) -> None:
    rows = warmup_rows(pool, 0.25, exclude={1, 2, 3}, seed=5)
    assert len(rows) == len(set(rows)) == 15
    assert rows == warmup_rows(pool, 0.25, exclude={1, 2, 3}, seed=5)
    assert rows != warmup_rows(pool, 0.25, exclude={1, 2, 3}, seed=6)
    assert not {1, 2, 3} & set(rows)


def test_fraction_zero_leaves_the_proxy_cold(vlm_path: str, pool: EncodedDataset) -> None:
    proxy = build_proxy(ProxyConfig(vlm_path, warmup_fraction=0))
    assert warm_up(proxy, pool, set()) == []
    assert proxy.adam is None


def test_pool_without_a_usable_row_is_an_error_that_names_the_statuses(processor) -> None:
    rows = Rows(datasets.Dataset.from_dict({"question": ["a", "b"], "answer": ["", ""]}))
    with pytest.raises(DataError, match=r"no row of the pool can be used.*no_labels.*; row \d+: no answer tokens"):
        warmup_rows(EncodedDataset(rows, Encoder(processor)), 0.5, set(), seed=0)


@pytest.mark.parametrize(
    ("field", "value"), [("lora_r", 0), ("warmup_fraction", 1.5), ("warmup_batch_size", 0), ("warmup_learning_rate", 0)]
)
def test_configuration_is_checked(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"proxy\.{field} must be (a number|an integer)"):
        ProxyConfig("x", **{field: value})
