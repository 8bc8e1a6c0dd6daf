"""What a trainer reads off its arguments before it does anything: strategies, sources, and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
import transformers

from ost_hf.data.config import AnchorConfig
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError, RunDirectoryError
from ost_hf.models import ModelConfig, load_model
from ost_hf.proxy.config import ProxyConfig
from ost_hf.selection.kept import Selection
from ost_hf.tables.score_table import ScoreTable
from ost_hf.tables.selection_table import SelectionTable
from ost_hf.training.config import OSTConfig
from ost_hf.training.plan import SelectionPlan, given_choices, plan_selection
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


PROXY = {"model": "nowhere", "lora_r": 2}
ROWS = datasets.Dataset.from_list([{"prompt": f"p{n}", "completion": f"c{n}"} for n in range(6)])
TABLE = pa.table({"example_id": Rows(ROWS).example_ids, "row": range(6), "kept": [True, False] * 3})


def planned(folder: Path, keywords: dict[str, Any], **fields: Any) -> SelectionPlan:
    """What a trainer would plan with these keywords and fields of its configuration."""
    args = OSTConfig(str(folder), use_cpu=True, **fields)
    plan = plan_selection(args, given_choices(args, keywords), ROWS, None, None)
    assert plan is not None
    return plan


def test_keywords_outweigh_fields_of_the_configuration(tmp_path: Path) -> None:
    anchors = [{"prompt": "a", "completion": "b"}]
    fields = {"proxy": PROXY, "anchors": "missing.jsonl", "strategy": "paper", "scoring": {"per_anchor": True}}
    plan = planned(tmp_path, {"anchors": anchors, "strategy": "one_step"}, **fields)
    assert plan.request is not None and plan.request.anchors is not None
    assert plan.request.proxy.model == "nowhere" and plan.request.proxy.lora_r == 2
    assert len(plan.request.anchors) == 1
    assert plan.choice.strategy == "one_step" and plan.choice.scoring.per_anchor
    other = planned(tmp_path, {"proxy": "elsewhere", "anchors": anchors, "scoring": {"part_size": 4}}, **fields)
    assert other.request is not None and other.request.proxy == ProxyConfig("elsewhere")
    assert other.choice.strategy == "paper" and (other.choice.scoring.per_anchor, other.choice.scoring.part_size) == (
        False,
        4,
    )


@pytest.mark.parametrize("source", ["selection", "scores"])
def test_another_source_as_keyword_stands_in_place_of_the_configurations_and_what_belongs_to_that(
    tmp_path: Path, source: str
) -> None:
    fields = {"proxy": PROXY, "anchors": "missing.jsonl", "scoring": {"sketch_size": 8}, "duplicates": {"near": False}}
    scores = TABLE.append_column("utility", [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]]).append_column("status", [["ok"] * 6])
    plan = planned(tmp_path, {source: TABLE if source == "selection" else scores}, strategy="one_step", **fields)
    assert plan.request is None
    kept = plan.select().kept["row"].to_pylist()
    assert kept == ([0, 2, 4] if source == "selection" else [3, 4, 5])


def test_selection_in_any_form_is_the_selection(tmp_path: Path) -> None:
    made = Selection(TABLE)
    made.write(tmp_path / "run")
    for given in (made, TABLE, SelectionTable(TABLE), tmp_path / "run", str(tmp_path / "run" / "selection.parquet")):
        found = planned(tmp_path, {"selection": given}).select()
        assert isinstance(found, Selection) and found.table.equals(TABLE)
    assert planned(tmp_path, {"selection": TABLE.drop_columns("row")}).select().kept_count == 3


@pytest.mark.parametrize(
    ("keywords", "fields", "error", "message"),
    [
        ({"selection": TABLE}, {"drop_toxic": True}, ConfigError, "says already what is kept; leave drop_toxic unset"),
        ({"selection": TABLE}, {"sampling": "weighted"}, ConfigError, "the selection has no column 'utility'"),
        ({"selection": "nowhere"}, {}, RunDirectoryError, "no selection table at nowhere"),
        ({"scores": "nowhere"}, {}, RunDirectoryError, "no score table in nowhere"),
        ({"scores": "begun"}, {}, RunDirectoryError, "has 4 of 6 rows"),
        ({"scores": "scored"}, {"drop_toxic": True}, ConfigError, "drop_toxic goes by columns that the scores lack"),
        ({"scores": TABLE}, {"drop_toxic": True}, ConfigError, "drop_toxic goes by columns that the scores lack"),
        ({"scores": "scored"}, {"encoding": {"maxlength": 3}}, ConfigError, "max_length"),
        ({"proxy": "p", "anchors": ROWS}, {"strategy": "one_step", "drop_toxic": True}, ConfigError, "drop_toxic goes"),
        ({"proxy": {"modle": "p"}, "anchors": ROWS}, {}, ConfigError, "did you mean 'model'"),
        ({"proxy": "p", "anchors": {"pth": "p"}}, {}, ConfigError, "did you mean 'path'"),
        ({"proxy": "p", "anchors": "nowhere.jsonl"}, {}, DataError, "nowhere.jsonl"),
        ({"proxy": "p", "anchors": ROWS, "duplicates": {"nears": True}}, {}, ConfigError, "did you mean 'near'"),
        ({"proxy": "p", "anchors": ROWS, "scoring": {"group_by": "topic"}}, {}, DataError, "'topic'"),
    ],
)
def test_what_could_not_be_chosen_by_is_refused_in_the_constructor(
    keywords: dict[str, Any], fields: dict[str, Any], error: type, message: str, tmp_path: Path
) -> None:
    for name, rows in (("begun", 4), ("scored", 6)):
        table = ScoreTable(tmp_path / name / "scores")
        utility = pa.array([0.1] * rows)
        table.write_part(TABLE.drop_columns("kept").slice(0, rows).append_column("utility", utility))
        table.write_manifest({}, rows=6)
        keywords = {key: tmp_path / name if value == name else value for key, value in keywords.items()}
    with pytest.raises(error, match=message):
        planned(tmp_path / "out", keywords, **fields)
    assert not (tmp_path / "out").exists()
