"""A study's YAML, and the configurations of its arms."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tiny_study import Record, write

from ost_hf.errors import ConfigError
from ost_hf.runs.yaml_values import dump_yaml
from ost_hf.study.config import load_study
from ost_hf.study.plan import arms, configuration, filled, groups, prepare_command, repetition
from ost_hf.study.provenance import configuration_hash
from ost_hf.study.run import run_study


def test_sections_lie_over_one_another_and_names_are_filled_in(given: Record, tmp_path: Path) -> None:
    given["settings"]["tiny"]["selection"] = {"length_strata": 2}
    given["settings"]["tiny"]["prepare_options"] = ["--noise", 0.3]
    given["common"]["anchors"]["size"] = 4
    config = load_study(write(given, tmp_path))
    group = groups(config)[1]
    assert (group.setting, group.seed) == ("tiny", 6)
    first, second = (configuration(config, group, "one_step", arm) for arm in arms(config, "one_step"))
    assert first.run_dir.endswith("tiny/seed-6/one_step/keep-0.25-A")
    assert second.selection.keep_ratio == 0.25
    assert second.selection.length_strata == 2
    assert second.pool is not None
    assert second.pool.path == str(group.data / "pool.parquet")
    assert [second.proxy.seed, second.scoring.seed, second.selection.seed] == [6, 6, 6]  # type: ignore[union-attr]
    assert second.training["seed"] == 6
    assert second.anchors is not None
    assert second.anchors.seed == 6  # others of them for each seed
    assert [arm.name for arm in arms(config, "everything")] == ["keep-own-A", "keep-own-B"]
    command = prepare_command(config, group)
    assert command is not None
    sizes = ["--pool_rows", "40", "--anchor_rows", "6", "--test_rows", "10"]
    assert command[-10:] == ["--seed", "6", *sizes, "--noise", "0.3"]
    assert filled(["{setting}-{seed}", 3, None], group) == ["tiny-6", 3, None]


def test_options_of_a_scorer_or_stage_lie_over_one_another_one_by_one(given: Record, tmp_path: Path) -> None:
    given["common"]["scoring"] = {"second_look": {"learning_rate": 2e-3, "rounds": 1}, "one_step": {"utility": "raw"}}
    given["settings"]["tiny"]["scoring"] = {"second_look": {"min_steps": 7}}
    given["methods"]["auto"] = {"scoring": {"second_look": {"rounds": 2}, "part_size": 9}}
    config = load_study(write(given, tmp_path))
    scoring = configuration(config, groups(config)[0], "auto").scoring
    options = scoring.stage_options
    assert (options.learning_rate, options.rounds, options.min_steps, scoring.part_size) == (2e-3, 2, 7, 9)
    assert scoring.options.utility == "raw"
    # What a method does not name stays below it.
    other = configuration(config, groups(config)[0], "one_step").scoring
    assert (other.section("second_look").rounds, other.section("second_look").min_steps) == (1, 7)


def test_studies_share_fields_of_a_file(given: Record, tmp_path: Path) -> None:
    whole = load_study(write(given, tmp_path))
    shared = {name: given[name] for name in ("common", "methods", "settings", "keep_ratios", "protocols", "truth")}
    of_look = {"second_look": {"rounds": 1, "epochs": 2.0}}
    shared["common"] = {**given["common"], "scoring": {"batch_size": 1, "part_size": 2, **of_look}}
    file = tmp_path / "shared.yaml"
    file.write_text(dump_yaml(shared))
    own = {name: value for name, value in given.items() if name not in shared}
    own |= {
        "include": "shared.yaml",
        "protocols": ["B"],
        "common": {"scoring": {"batch_size": 5, "second_look": {"rounds": 3}}},
    }
    own["methods"] = {"random": {"scoring": {"scorer": "length"}}, "one_step": None, "plain": {}}
    found = load_study(write(own | {"reference": "one_step"}, tmp_path))
    scoring = {"batch_size": 5, "part_size": 2, "second_look": {"rounds": 3, "epochs": 2.0}}
    assert found.common == {**whole.common, "scoring": scoring}
    methods = {"random": {"scoring": {"scorer": "length"}}, "one_step": whole.methods["one_step"], "plain": {}}
    assert found.methods == methods
    assert list(found.methods) == list(methods)
    assert (found.settings, found.keep_ratios, found.protocols) == (whole.settings, whole.keep_ratios, ["B"])
    own["methods"] = {"one_stpe": None}
    with pytest.raises(
        ConfigError, match=r"unknown name in the included methods 'one_stpe' \(did you mean 'one_step'.*{}"
    ):
        load_study(write(own, tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("include: other.yaml", "include no other"),
        ("- 1", "must hold fields of a study"),
        ("common: {scoring: x}", "section scoring must hold fields, got 'x'"),
        ("common: 3", "common must hold sections, got 3"),
        ("methods: {x: }", r"unknown field of a study 'nothing'"),
        (None, r"there is no .*shared\.yaml \(a path is read from the folder of"),
    ],
)
def test_a_shared_file_that_is_none_is_refused(given: Record, tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "shared.yaml").write_text(text)
    given |= {"include": "shared.yaml"}
    given["common"]["scoring"] = {"batch_size": 5}
    if text == "methods: {x: }":
        given["nothing"] = 1
    with pytest.raises(ConfigError, match=message):
        load_study(write(given, tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": 5}, "seeds must be a list, got 5"),
        ({"keep_ratios": 0.5}, r"keep_ratios must be a list, got 0\.5"),
        ({"count_by": "operation"}, "count_by must be a list, got 'operation'"),
        ({"protocols": ["C"]}, "protocols must be one of"),
        ({"keep_ratios": [1.5]}, "keep_ratios must be"),
        ({"reference": "autoo"}, "unknown method \\(reference\\) 'autoo'"),
        ({"settings": {"a/b": {}}}, "names become folders"),
        ({"truth": {"column": "kind"}}, "truth must hold column and clean"),
        ({"truth": 5}, "truth must hold column and clean, got 5"),
        ({"methods": {"auto": {"prepare": ["true"]}}, "reference": "auto"}, "methods.auto.prepare would do nothing"),
        ({"worker": 2}, "did you mean 'workers'"),
        ({"datamodelling": 3}, "datamodelling must hold subsets, share and max_steps, got 3"),
        ({"datamodelling": {"subsets": 3, "share": None, "max_steps": 2}}, "datamodelling must hold subsets, share"),
        ({"datamodelling": {"subsets": "x", "share": 7, "max_steps": -1}}, r"subsets must be an integer >= 3, got 'x'"),
        ({"datamodelling": {"subsets": 2, "share": 0.5, "max_steps": 1}}, r"subsets must be an integer >= 3, got 2"),
        ({"datamodelling": {"subsets": 3, "share": 7, "max_steps": 1}}, r"share must be a number > 0 and <= 1, got 7"),
        ({"datamodelling": {"subsets": 3, "share": 0, "max_steps": 1}}, r"share must be a number > 0 and <= 1, got 0"),
        ({"datamodelling": {"subsets": 3, "share": 1, "max_steps": -1}}, r"max_steps must be an integer >= 1, got -1"),
        ({"methods": ["auto"]}, "methods must hold names and their sections"),
        ({"bounds": ["everything"]}, r"bounds must name two methods, got \['everything'\]"),
        ({"bounds": "everything"}, "bounds must be a list, got 'everything'"),
        ({"everything": "all"}, "unknown field of a study 'everything'"),
    ],
)
def test_what_is_wrong_is_said(given: Record, tmp_path: Path, change: Record, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_study(write({**given, **change}, tmp_path))


@pytest.mark.parametrize("protocol", ["A", "B"])
@pytest.mark.parametrize("steps", [None, 0, 2.5, True, "8"])
def test_both_protocols_need_a_number_of_steps_before_anything_runs(
    given: Record, tmp_path: Path, protocol: str, steps: object
) -> None:
    given["common"]["training"]["max_steps"] = steps
    study = load_study(write({**given, "protocols": [protocol]}, tmp_path))
    message = f"training.max_steps of method everything must be an integer >= 1, got {steps!r}: set it in common"
    with pytest.raises(ConfigError, match=re.escape(message)):
        run_study(study, groups(study), list(study.methods))
    assert not study.folder.exists()


def test_a_score_is_asked_for_before_anything_runs(given: Record, tmp_path: Path) -> None:
    del given["common"]["evaluation"], given["methods"]["untrained"]
    study = load_study(write(given, tmp_path))
    with pytest.raises(ConfigError, match="method everything has no section evaluation, which gives it its score"):
        run_study(study, groups(study), list(study.methods))
    assert not study.folder.exists()


def test_repetitions_are_of_one_configuration_whatever_names_hold_the_seed(given: Record, tmp_path: Path) -> None:
    given["common"]["pool"] = {"path": "pools/{seed}.parquet"}
    config = load_study(write(given, tmp_path))
    hashes = {configuration_hash(configuration(config, repetition(group), "one_step")) for group in groups(config)}
    assert len(hashes) == 1


def test_cascade_looks_near_the_cut(given: Record, tmp_path: Path) -> None:
    scoring = {"second_stage": "cascade", "one_step": {"utility": "raw"}, "cascade": {"band": 0.2}}
    given["methods"]["cascade"] = {"strategy": "one_step", "scoring": scoring}
    config = load_study(write(given, tmp_path))
    options = configuration(config, groups(config)[0], "cascade").scoring.stage_options
    assert (options.keep_ratio, options.band) == (0.25, 0.2)
    given["methods"]["own"] = {**given["methods"]["cascade"], "selection": {"keep_ratio": 0.1}}
    config = load_study(write(given | {"keep_ratios": [0.2, 0.5]}, tmp_path))
    assert configuration(config, groups(config)[0], "own").scoring.stage_options.keep_ratio == 0.1
    with pytest.raises(ConfigError, match=r"methods\.cascade: with several keep_ratios cascade needs"):
        configuration(config, groups(config)[0], "cascade")
