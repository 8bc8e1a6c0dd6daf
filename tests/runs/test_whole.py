"""What later stages would stumble over is said before the first one."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from ost_hf.errors import ConfigError, OSTError
from ost_hf.runs.config import RunConfig, build_config
from ost_hf.runs.whole import preflight, run_whole
from ost_hf.runs.yaml_values import dump_yaml
from ost_hf.study.config import load_study
from ost_hf.study.plan import groups
from ost_hf.study.worker import run_group

Record = dict[str, Any]


@pytest.fixture(scope="module")
def given(tmp_path_factory, vlm_path: str, pool_dataset, anchor_dataset, test_dataset) -> Record:
    """The sections of a run that could start."""
    folder = tmp_path_factory.mktemp("preflight")
    paths = {}
    for name, dataset in (("pool", pool_dataset), ("anchors", anchor_dataset), ("evaluation", test_dataset)):
        paths[name] = str(folder / f"{name}.parquet")
        dataset.to_parquet(paths[name])
    return {
        "run_dir": str(folder / "run"),
        "pool": {"path": paths["pool"]},
        "anchors": {"path": paths["anchors"]},
        "proxy": {"model": vlm_path},
        "target": {"model": vlm_path},
        "training": {"max_steps": 2, "report_to": "none"},
        "evaluation": {"path": paths["evaluation"], "reference_column": "solution", "group_by": "kind"},
    }


def changed(given: Record, changes: Record) -> RunConfig:
    sections = {name: {**given.get(name, {}), **fields} for name, fields in changes.items() if name != "strategy"}
    return build_config({**given, **changes, **sections})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"max_step": 3}}, r"unknown field of section training 'max_step' \(did you mean 'max_steps'\?\)"),
        ({"training": {"max_steps": "many"}}, "training.max_steps must be int, got 'many'"),
        ({"training": {"bf16": "yes"}}, "training.bf16 must be bool, got 'yes'"),
        ({"training": {"lr_scheduler_type": "zigzag"}}, "section training: .*zigzag"),
        (
            {"training": {"eval_strategy": "steps"}},
            "eval_strategy is 'steps', but the train stage has no evaluation set",
        ),
        ({"training": {"train_sampling_strategy": "group_by_length"}}, "OSTSampler decides the order of the rows"),
        ({"target": {"model": "org/none"}}, "target.model 'org/none': not a local folder, and the Hub has none of"),
        ({"proxy": {"model": "./none/at/all"}}, "proxy.model './none/at/all': not a local folder, and the Hub has"),
        ({"evaluation": {"model": "org/none"}}, "model 'org/none': not a local folder"),
        ({"target": {"model": "tests"}}, "target.model 'tests': the folder has no config.json"),
        ({"evaluation": {"group_by": "topic"}}, "evaluation.group_by: there is no column 'topic'; there are: "),
        ({"evaluation": {"reference_column": "gold"}}, "evaluation.reference_column: there is no column 'gold'"),
        ({"evaluation": {"path": "none.parquet"}}, "none.parquet does not exist"),
        ({"selection": {"balance_by": "source"}}, "selection.balance_by: the pool has no column 'source'; there are: "),
        (
            {"strategy": "one_step", "selection": {"order": "setwise"}},
            r"selection.order 'setwise' goes by columns that the scores lack \(.* have: none\): score with "
            "scoring.sketch_size",
        ),
        (
            {"scoring": {"scorer": "random"}, "selection": {"drop_toxic": True}},
            "selection.drop_toxic goes by columns that the scores lack .*: score with a second look, or "
            "scoring.per_anchor",
        ),
        ({"scoring": {"scorer": "length"}, "selection": {"aggregate": "min"}}, "score with scoring.group_by"),
        (
            {"scoring": {"group_by": "kind"}, "selection": {"aggregate": "min"}},
            "selection.aggregate makes one utility of many, but selection.order 'auto' goes by sketches or p-values",
        ),
        ({"accelerate": {"train": "none.yaml"}}, "there is no accelerate config none.yaml"),
    ],
)
def test_mistakes_of_later_stages_end_the_run_before_it_scores(
    given: Record, root: Path, monkeypatch: pytest.MonkeyPatch, changes: Record, message: str
) -> None:
    monkeypatch.chdir(root)
    config = changed(given, changes)
    with pytest.raises(OSTError, match=message):
        run_whole(config)
    assert not config.folder.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "scoring": {"sketch_size": 16},
            "selection": {"order": "setwise", "drop_toxic": True, "balance_by": "kind"},
        },
        {"strategy": "one_step", "scoring": {"per_anchor": True}, "selection": {"drop_toxic": True}},
        {"scoring": {"scorer": "rds", "group_by": "kind"}, "selection": {"aggregate": "min"}},
        {"training": {"max_steps": 3.0, "learning_rate": 1, "resume_from_checkpoint": True, "eval_steps": None}},
        # Only processes that the launcher starts could set this up.
        {"training": {"deepspeed": "none.json"}, "accelerate": {"num_processes": 2}},
    ],
)
def test_what_could_run_is_let_through_and_nothing_is_left_behind(given: Record, changes: Record) -> None:
    config, before = changed(given, changes), dict(os.environ)
    preflight(config)
    assert dict(os.environ) == before
    assert not config.folder.exists()


@pytest.mark.parametrize(("library", "extra"), [("math_verify", "math-verify"), ("evaluate", "the evaluate library")])
def test_a_library_that_evaluating_takes_is_asked_for_before_scoring(
    given: Record, monkeypatch: pytest.MonkeyPatch, library: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # as where it is not installed
    with pytest.raises(ConfigError, match=rf"needs {extra}: pip install 'ost-hf\[eval\]'"):
        preflight(changed(given, {}))


@pytest.mark.parametrize(
    ("accelerate", "refused"),
    [
        ({}, True),
        ({"train": "accelerate_configs/single_gpu.yaml"}, True),
        ({"num_processes": 1}, True),
        ({"train": "accelerate_configs/multi_gpu.yaml"}, False),
        ({"train": "accelerate_configs/single_gpu.yaml", "num_processes": 2}, False),
    ],
)
def test_several_devices_for_one_process_are_refused_before_scoring(
    given: Record, root: Path, monkeypatch: pytest.MonkeyPatch, accelerate: Record, refused: bool
) -> None:
    monkeypatch.chdir(root)
    # What the arguments say where two GPUs are visible.
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 2))
    with pytest.raises(ConfigError, match="2 devices are visible to one process") if refused else nullcontext():
        preflight(changed(given, {"accelerate": accelerate}))


def test_the_target_may_be_evaluated_by_its_own_name(given: Record) -> None:
    preflight(changed(given, {"evaluation": {"model": f"{given['run_dir']}/target"}}))


def test_a_method_of_a_study_is_checked_before_it_is_scored(given: Record, tmp_path: Path) -> None:
    common = {name: section for name, section in given.items() if name != "run_dir"}
    common["training"] = {"max_steps": "many"}
    sections = {"settings": {"tiny": {}}, "common": common, "methods": {"random": {"scoring": {"scorer": "random"}}}}
    sections |= {"run_dir": str(tmp_path / "study"), "seeds": [5], "keep_ratios": [0.5], "protocols": ["B"]}
    (tmp_path / "study.yaml").write_text(dump_yaml({**sections, "reference": "random"}))
    study = load_study(str(tmp_path / "study.yaml"))
    (failure,) = run_group(study, groups(study)[0], ["random"])
    assert "random: ConfigError: training.max_steps must be int, got 'many'" in failure
    assert not (groups(study)[0].folder / "random").exists()
