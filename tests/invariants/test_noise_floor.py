"""Default step sizes: far above the noise of float32, and small enough that first order ranks like `exact`."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import pad

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.proxy.model import Proxy
from ost_hf.scorers.one_step.estimators import AnchorSet, Exact
from ost_hf.scorers.one_step.scorer import OneStepScorer
from ost_hf.scoring.config import ScoringConfig


def padded(batch: dict[str, Tensor], columns: int) -> dict[str, Tensor]:
    """The same samples with more padding."""
    return {
        key: pad(value, (0, columns), value=-100 if key == "labels" else 0)
        if value.shape == batch["input_ids"].shape
        else value
        for key, value in batch.items()
    }


def scorer_of(proxy: Proxy, anchors: EncodedDataset, estimator: str, update_rule: str) -> OneStepScorer:
    config = ScoringConfig().with_options(estimator=estimator, utility="raw", update_rule=update_rule)
    return OneStepScorer(config, config.options, proxy, anchors)


@pytest.mark.slow
@pytest.mark.parametrize("update_rule", ["sgd", "adamw"])
def test_exact_and_raw_reverse_rank_alike_at_the_default_step_size(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, update_rule: str, record_property
) -> None:
    batch = [pool.encode(row) for row in range(len(pool))]
    utilities = {}
    for estimator in ("exact", "reverse"):
        utilities[estimator] = scorer_of(warm_proxy, anchors, estimator, update_rule).score(batch)["utility"]
    correlation = float(spearmanr(utilities["exact"], utilities["reverse"]).statistic)
    record_property(f"spearman_{update_rule}", correlation)
    print(f"Spearman of exact and raw reverse, {update_rule}: {correlation:.4f}")
    assert correlation >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("update_rule", ["sgd", "adamw"])
def test_exact_stands_twenty_times_above_its_noise_floor(
    warm_proxy: Proxy, pool: EncodedDataset, anchors: EncodedDataset, update_rule: str
) -> None:
    batch = [pool.encode(row) for row in range(20)]
    scorer = scorer_of(warm_proxy, anchors, "exact", update_rule)
    utility = scorer.score(batch)["utility"].numpy()
    wider = AnchorSet([padded(anchor_batch, 200) for anchor_batch in scorer.anchors.batches])
    scorer.estimator = Exact(scorer.config, scorer.options, warm_proxy, wider, scorer.rule)
    elsewhere = scorer.score(batch)["utility"].numpy()
    floor = np.median(np.abs(utility - elsewhere))
    print(f"{update_rule}: median |utility| {np.median(np.abs(utility)):.1e}, noise floor {floor:.1e}")
    assert np.median(np.abs(utility)) >= 20 * floor
