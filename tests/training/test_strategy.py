"""OSTTrainer's strategy, and fields of scoring over it."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
import transformers

from ost_hf.data.config import AnchorConfig
from ost_hf.errors import ConfigError
from ost_hf.models import ModelConfig, load_model
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.training.config import OSTConfig
from ost_hf.training.trainer import OSTTrainer

# What is never reached where settings are refused first.
SCORED = {"proxy": "nowhere", "anchors": AnchorConfig("nowhere")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "one_step"}, "strategy says how a pool is scored here"),
        ({"scoring": {}}, "scoring says how a pool is scored here"),
        ({"strategy": "auto", "scoring": ScoringConfig(), **SCORED}, "leave strategy unset, or give scoring as a dict"),
        ({"scoring": {"secondlook": True}, **SCORED}, "second_look"),
        ({"strategy": "best", **SCORED}, "best"),
        ({"strategy": "paper", "scoring": {"utility": "relative"}, **SCORED}, "paper's method to the letter"),
    ],
)
def test_strategy_that_cannot_be_is_refused_before_scoring(
    settings: dict, message: str, text_path: str, pool_dataset: datasets.Dataset, tmp_path: Path
) -> None:
    args = OSTConfig(str(tmp_path), use_cpu=True)
    with pytest.raises(ConfigError, match=message):
        OSTTrainer(
            load_model(ModelConfig(text_path)),
            args,
            train_dataset=pool_dataset,
            processing_class=transformers.AutoTokenizer.from_pretrained(text_path),
            **settings,
        )
    assert not (tmp_path / "ost").exists()


def test_fields_of_scoring_go_over_those_of_the_strategy(
    pool_dataset: datasets.Dataset, anchor_dataset: datasets.Dataset, vlm_path: str, tmp_path: Path
) -> None:
    OSTTrainer(
        load_model(ModelConfig(vlm_path)),
        OSTConfig(str(tmp_path), use_cpu=True),
        train_dataset=pool_dataset,
        processing_class=transformers.AutoProcessor.from_pretrained(vlm_path),
        proxy=ProxyConfig(vlm_path, lora_r=2, warmup_min_steps=2, warmup_batch_size=4),
        anchors=anchor_dataset,
        strategy="paper",
        scoring={"estimator": "reverse", "sketch_size": 16},
    )
    manifest = json.loads((tmp_path / "ost" / "scores" / "manifest.json").read_text())
    scoring = manifest["identity"]["scoring"]
    got = [scoring[name] for name in ("estimator", "utility", "update_rule", "second_look", "sketch_size")]
    assert got == ["reverse", "raw", "sgd", False, 16]
