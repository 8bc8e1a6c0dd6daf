"""OSTConfig and OSTSFTConfig: what flags and YAML make of them, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import datasets
import pytest
import transformers
import trl

from ost_hf.data.config import AnchorConfig
from ost_hf.errors import ConfigError
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.training.config import OSTConfig, SelectionArguments, copied
from ost_hf.training.trl import OSTSFTConfig

OURS = {item.name for item in fields(SelectionArguments)} | {"sampling", "check_rows"}
WORDS = [
    *("--proxy", "X", "--anchors", "anchors.jsonl", "--keep_ratio", "0.3", "--drop_toxic", "--strategy", "one_step"),
    *("--sampling", "ranked", "--check_rows", "false", "--output_dir", "out", "--use_cpu"),
]
JSON_WORDS = ["--scoring", '{"one_step": {"utility": "raw"}}', "--encoding", '{"max_length": 64}']


@pytest.mark.parametrize("theirs", [transformers.TrainingArguments, trl.SFTConfig])
def test_no_field_of_ours_hides_one_of_theirs(theirs: type) -> None:
    plain = {item.name for item in fields(transformers.TrainingArguments)}
    assert {item.name for item in fields(OSTConfig)} - plain == OURS
    assert not OURS & {item.name for item in fields(theirs)}


def test_every_field_is_described() -> None:
    described = {item.name: item.metadata.get("help", "") for item in fields(OSTConfig)}
    assert all(described[name].endswith(".") for name in OURS)


def test_flags_of_a_script_say_everything() -> None:
    [args] = transformers.HfArgumentParser(OSTConfig).parse_args_into_dataclasses([*WORDS, *JSON_WORDS])
    assert (args.proxy, args.anchors, args.keep_ratio, args.drop_toxic) == ("X", "anchors.jsonl", 0.3, True)
    assert (args.strategy, args.sampling, args.check_rows, args.output_dir) == ("one_step", "ranked", False, "out")
    assert args.scoring == {"one_step": {"utility": "raw"}}
    assert args.encoding == {"max_length": 64}
    assert args.selection_fields() == {"keep_ratio": 0.3, "drop_toxic": True}
    assert args.choosing() == {
        "proxy": "X", "anchors": "anchors.jsonl", "strategy": "one_step", "scoring": args.scoring,
        "encoding": args.encoding,
    }  # fmt: skip
    [args] = transformers.HfArgumentParser(OSTConfig).parse_args_into_dataclasses(["--use_cpu", "--selection", "run"])
    assert args.choosing() == {"selection": "run"}
    words = ["--use_cpu", "--proxy", '{"model": "X", "lora_r": 4}', "--anchors", '{"path": "a.jsonl", "size": 3}']
    [args] = transformers.HfArgumentParser(OSTConfig).parse_args_into_dataclasses(words)
    assert args.choosing() == {"proxy": {"model": "X", "lora_r": 4}, "anchors": {"path": "a.jsonl", "size": 3}}


def test_trl_parser_reads_the_same_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "sft.yaml").write_text(
        "output_dir: out\nuse_cpu: true\nbf16: false\npacking: true\nproxy: {model: X, lora_r: 4}\n"
        "anchors: anchors.jsonl\nkeep_ratio: 0.3\ndrop_toxic: true\nscoring:\n  one_step: {utility: raw}\n"
        "duplicates:\n  near: false\n"
    )
    parser = trl.TrlParser(OSTSFTConfig)
    [args] = parser.parse_args_and_config(["--config", str(tmp_path / "sft.yaml"), "--keep_ratio", "0.4"])
    assert isinstance(args, OSTSFTConfig) and args.packing
    assert args.selection_fields() == {"keep_ratio": 0.4, "drop_toxic": True}
    assert args.choosing() == {
        "proxy": {"model": "X", "lora_r": 4}, "anchors": "anchors.jsonl", "scoring": {"one_step": {"utility": "raw"}},
        "duplicates": {"near": False},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scoring": "{"}, "scoring is no JSON"),
        ({"duplicates": "[1]"}, "duplicates must hold fields and values as JSON"),
        ({"keep_ratio": 0.5, "keep_count": 3}, "keep_ratio or selection.keep_count, not both"),
        ({"sampling": "rank"}, r"did you mean 'ranked'\?"),
        ({"anchors": datasets.Dataset.from_list([{"x": 1}])}, "got a Dataset: give it to the trainer, as anchors="),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        OSTConfig(str(tmp_path), use_cpu=True, **given)


def test_configurations_and_paths_in_it_become_plain_values(tmp_path: Path) -> None:
    args = OSTConfig(
        str(tmp_path), use_cpu=True, proxy=ProxyConfig("X", lora_r=4), anchors=AnchorConfig("a.jsonl", size=3),
        scoring=ScoringConfig.from_mapping({"one_step": {"utility": "raw"}}),
    )  # fmt: skip
    assert (args.proxy["model"], args.proxy["lora_r"]) == ("X", 4)
    assert (args.anchors["path"], args.anchors["size"]) == ("a.jsonl", 3)
    assert args.scoring == {"one_step": {"utility": "raw"}}
    assert json.loads(args.to_json_string())["scoring"] == args.scoring
    assert OSTConfig(str(tmp_path), use_cpu=True, scores=tmp_path).scores == str(tmp_path)


def test_a_copy_has_nested_settings_of_its_own(tmp_path: Path) -> None:
    args = OSTConfig(str(tmp_path), use_cpu=True, scoring={"one_step": {}}, gradient_checkpointing_kwargs={"a": 1})
    before, copy = args.to_dict(), copied(args)
    assert copy.to_dict() == before
    copy.scoring["one_step"]["utility"] = "raw"
    copy.gradient_checkpointing_kwargs.clear()
    copy.accelerator_config.dispatch_batches = False
    copy.remove_unused_columns = False
    assert args.to_dict() == before
