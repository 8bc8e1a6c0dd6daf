"""What a trainer reads off its arguments before it does anything: strategies, sources, and what cannot be."""

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
from ost_hf.training.config import OSTConfig
from ost_hf.training.trainer import OSTTrainer

# What is never reached where settings are refused first.
SCORED = {"proxy": "nowhere", "anchors": AnchorConfig("nowhere")}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "one_step"}, "strategy says how a pool is scored here"),
        ({"scoring": {}}, "scoring says how a pool is scored here"),
        ({"duplicates": {}}, "duplicates says how a pool is scored here"),
        ({"encoding": {}}, "encoding needs rows to choose"),
        ({"scoring": {"secondstage": None}, **SCORED}, "second_stage"),
        ({"scoring": 3, **SCORED}, "scoring must hold fields and values, or be a ScoringConfig, got 3"),
        ({"strategy": "best", **SCORED}, "best"),
        (
            {"strategy": "paper", "scoring": {"one_step": {"utility": "relative"}}, **SCORED},
            "paper's method to the letter",
        ),
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
    trainer = OSTTrainer(
        load_model(ModelConfig(vlm_path)),
        OSTConfig(str(tmp_path), use_cpu=True),
        train_dataset=pool_dataset,
        processing_class=transformers.AutoProcessor.from_pretrained(vlm_path),
        proxy=ProxyConfig(vlm_path, lora_r=2, warmup_min_steps=2, warmup_batch_size=4),
        anchors=anchor_dataset,
        strategy="paper",
        scoring={"one_step": {"estimator": "reverse"}, "sketch_size": 16},
    )
    trainer.score()
    manifest = json.loads((tmp_path / "ost" / "scores" / "manifest.json").read_text())
    scoring = manifest["identity"]["scoring"]
    options = [scoring["one_step"][name] for name in ("estimator", "utility", "update_rule")]
    assert options == ["reverse", "raw", "sgd"]
    assert (scoring["second_stage"], scoring["sketch_size"], manifest["strategy"]) == (None, 16, "paper")
