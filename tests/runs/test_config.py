"""One YAML, and a flag for each field."""

from __future__ import annotations

from pathlib import Path

import pytest

from ost_hf.errors import ConfigError
from ost_hf.runs.config import build_config, load_config
from ost_hf.runs.evaluate import evaluated_model
from ost_hf.runs.yaml_values import dump_yaml, parse_yaml
from ost_hf.scoring.config import ScoringConfig
from ost_hf.selection.config import SelectionConfig

SMALL = """
run_dir: run
pool: {path: pool.jsonl}
anchors: {path: anchors.jsonl, size: 10}
proxy: {model: tiny, warmup_learning_rate: 1e-3}
training: {max_steps: 5, save_strategy: no}
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(SMALL)
    return str(path)


def test_yaml_is_read_as_people_mean_it() -> None:
    read = parse_yaml("{a: 1e-3, b: no, c: true, d: 12, e: 0.5, f: on, g: null, h: -2.5E+3, i: 1.}", "x")
    assert read == {"a": 0.001, "b": "no", "c": True, "d": 12, "e": 0.5, "f": "on", "g": None, "h": -2500.0, "i": 1.0}
    assert parse_yaml(dump_yaml(read), "x") == read


def test_flags_lie_over_the_yaml(small: str) -> None:
    overrides = {"proxy.lora_r": "4", "selection.keep_ratio": "0.2", "training.max_steps": "7", "anchors.size": "null"}
    config = load_config(small, overrides, run_dir="elsewhere")
    assert config.run_dir == "elsewhere"
    assert config.proxy is not None
    assert (config.proxy.lora_r, config.proxy.warmup_learning_rate) == (4, 0.001)
    assert config.selection.keep_ratio == 0.2
    assert config.training == {"max_steps": 7, "save_strategy": "no"}
    assert config.anchors is not None
    assert config.anchors.size is None


def test_run_directory_replays_itself(small: str, tmp_path: Path) -> None:
    config = load_config(small, {}, run_dir=str(tmp_path / "run"))
    config.write()
    assert load_config(None, {}, run_dir=str(tmp_path / "run")) == config
    assert load_config(str(tmp_path / "run" / "config.yaml"), {}) == config


def test_a_section_that_was_given_as_an_instance_is_stored_as_its_given_fields(tmp_path: Path) -> None:
    scoring = ScoringConfig(second_stage=None, sections={"one_step": {"utility": "raw"}})
    config = build_config({"run_dir": str(tmp_path), "scoring": scoring, "selection": SelectionConfig(order="top")})
    config.write()
    stored = parse_yaml((tmp_path / "config.yaml").read_text(), "config.yaml")
    assert stored["scoring"] == {"second_stage": None, "one_step": {"utility": "raw"}}
    assert stored["selection"] == {"order": "top"}
    assert load_config(None, {}, run_dir=str(tmp_path)) == config


def test_flags_and_files_lie_over_nested_sections(small: str, tmp_path: Path) -> None:
    Path(small).write_text(f"{SMALL}scoring: {{one_step: {{utility: raw}}, second_look: {{rounds: 1}}}}\n")
    overrides = {"scoring.second_look.min_steps": "4", "scoring.one_step.utility": "mean_cosine"}
    config = load_config(small, overrides)
    assert config.given["scoring"] == {
        "one_step": {"utility": "mean_cosine"}, "second_look": {"rounds": 1, "min_steps": 4},
    }  # fmt: skip
    assert (config.scoring.stage_options.rounds, config.scoring.stage_options.min_steps) == (1, 4)
    (tmp_path / "a.py").write_text("")
    (tmp_path / "b.py").write_text("")
    files = [str(tmp_path / name) for name in ("a.py", "b.py")]
    first = load_config(small, {}, imports=files[:1])
    Path(small).write_text(first.as_yaml())
    assert load_config(small, {}, imports=files).given["scoring"]["imports"] == files


def test_resuming_is_never_stored(small: str, tmp_path: Path) -> None:
    config = load_config(small, {"training.resume_from_checkpoint": "true"}, run_dir=str(tmp_path / "run"))
    config.write()
    assert config.training["resume_from_checkpoint"] is True
    assert load_config(None, {}, run_dir=str(tmp_path / "run")).training == {"max_steps": 5, "save_strategy": "no"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{pool: {path: x}}", "run_dir is not set"),
        ("{run_dir: r, pools: {path: x}}", r"unknown section 'pools' \(did you mean 'pool'\?\)"),
        ("{run_dir: r, pool: {pth: x}}", r"unknown field of section pool 'pth' \(did you mean 'path'\?\); there are: "),
        ("{run_dir: r, pool: {limit: 5}}", "pool.path is not set: dataset name on the Hub"),
        ("{run_dir: r, pool: data.jsonl}", "section pool must hold fields and values, got 'data.jsonl'"),
        ("{run_dir: r, proxy: {model: x, lora_r: 2.5}}", "proxy.lora_r must be int, got 2.5"),
        ("{run_dir: r, proxy: {model: x, trust_remote_code: maybe}}", "proxy.trust_remote_code must be bool"),
        ("{run_dir: r, selection: {keep_ratio: half}}", "selection.keep_ratio must be float or null, got 'half'"),
        ("{run_dir: r, selection: {keep_ratio: 1.5}}", "selection.keep_ratio must be a number > 0 and <= 1, got 1.5"),
        ("{run_dir: r, training: {keep_ratio: 0.5}}", "the select stage decides: set it in selection"),
        ("{run_dir: r, training: {output_dir: x}}", "the target is written to run_dir/target"),
        ("{run_dir: r, anchors: {path: x, stratify_by: y}}", "anchors.stratify_by needs anchors.size"),
        ("{run_dir: r", "is not valid YAML"),
        ("just text", "must hold sections"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(str(path), {})


def test_missing_file_and_sections_are_named(small: str) -> None:
    with pytest.raises(ConfigError, match=r"there is no configuration file none\.yaml"):
        load_config("none.yaml", {})
    with pytest.raises(ConfigError, match=r"needs the sections target \(target\.model\) and evaluation"):
        load_config(small, {}).require("target", "evaluation")


def test_empty_section_is_the_default() -> None:
    assert build_config({"run_dir": "r", "scoring": None}) == build_config({"run_dir": "r"})


@pytest.mark.parametrize(("model", "revision"), [("org/base", "v2"), ("org/other", None)])
def test_the_targets_revision_is_for_the_target_alone(model: str, revision: str | None) -> None:
    target = {"model": "org/base", "revision": "v2"}
    config = build_config({"run_dir": "run", "target": target, "evaluation": {"path": "test.parquet", "model": model}})
    assert evaluated_model(config).revision == revision
