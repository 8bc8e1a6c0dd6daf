"""Whole ways of selecting by one name, and what is given laid over them."""

from __future__ import annotations

from typing import Any

import pytest

from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.errors import ConfigError
from ost_hf.runs.config import build_config, load_config
from ost_hf.scorers.one_step.options import OneStepOptions
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.second_look.options import SecondLookOptions
from ost_hf.selection.config import SelectionConfig
from ost_hf.strategy import STRATEGIES, resolve


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_a_valid_configuration(name: str) -> None:
    choice = resolve(name)
    assert choice.strategy == name
    assert choice.given == {}


def test_auto_is_the_default() -> None:
    config = build_config({"run_dir": "run"})
    assert config.choice == resolve() == resolve("auto")
    assert config.strategy == "auto"
    assert config.scoring.second_stage == "second_look"
    assert config.scoring.sketch_size == 0
    assert config.selection.order == "auto"


def test_auto_drops_exact_and_near_copies_unless_told_otherwise() -> None:
    assert build_config({"run_dir": "run"}).duplicates == DuplicatesConfig(
        within_pool="drop", near=True, anchors="drop"
    )
    exact = build_config({"run_dir": "run", "duplicates": {"near": False}}).duplicates
    assert exact == DuplicatesConfig(within_pool="drop", near=False, anchors="drop")
    assert build_config({"run_dir": "run", "duplicates": {"within_pool": "report"}}).duplicates.within_pool == "report"
    for sections in ({"strategy": "one_step"}, {"strategy": "paper"}, {"scoring": {"scorer": "random"}}):
        assert build_config({"run_dir": "run", **sections}).duplicates == DuplicatesConfig()


def test_what_is_given_outweighs_the_strategy() -> None:
    config = build_config({"run_dir": "run", "scoring": {"second_stage": None}, "selection": {"order": "top"}})
    assert config.scoring.second_stage is None
    assert config.selection.order == "top"


@pytest.mark.parametrize("name", STRATEGIES)
def test_instances_that_were_given_nothing_change_nothing(name: str) -> None:
    empty = {"scoring": ScoringConfig(), "duplicates": DuplicatesConfig(), "selection": SelectionConfig()}
    assert resolve(name, **empty) == resolve(name)
    assert resolve(name, scoring={}, duplicates={}, selection=None) == resolve(name)


@pytest.mark.parametrize(
    ("instance", "mapping"),
    [
        ({"scoring": ScoringConfig(second_stage=None)}, {"scoring": {"second_stage": None}}),
        ({"scoring": ScoringConfig("one_step", per_anchor=True)}, {"scoring": {"per_anchor": True}}),
        (
            {"scoring": ScoringConfig(sections={"second_look": SecondLookOptions(rounds=1)})},
            {"scoring": {"second_look": {"rounds": 1}}},
        ),
        (
            {"scoring": ScoringConfig.from_mapping({"one_step": {"utility": "raw"}})},
            {"scoring": {"one_step": OneStepOptions(utility="raw")}},
        ),
        (
            {"scoring": ScoringConfig().with_options(utility="raw")},
            {"scoring": {"one_step": {"utility": "raw"}}},
        ),
        ({"duplicates": DuplicatesConfig(near=False)}, {"duplicates": {"near": False}}),
        (
            {"selection": SelectionConfig(keep_ratio=0.3, order="top")},
            {"selection": {"keep_ratio": 0.3, "order": "top"}},
        ),
    ],
)
def test_instances_and_mappings_merge_by_field_alike(instance: dict[str, Any], mapping: dict[str, Any]) -> None:
    of_instance, of_mapping = resolve(**instance), resolve(**mapping)
    for section in ("duplicates", "scoring", "selection"):
        assert getattr(of_instance, section) == getattr(of_mapping, section)
    assert of_instance != resolve()


def test_an_explicit_default_is_kept(tmp_path) -> None:
    assert resolve(scoring=ScoringConfig(second_stage=None)).scoring.second_stage is None
    choice = resolve(duplicates=DuplicatesConfig(near=False))
    assert choice.duplicates == DuplicatesConfig(within_pool="drop", near=False, anchors="drop")
    assert choice.given == {"duplicates": {"near": False}}
    config = build_config({"run_dir": str(tmp_path), "scoring": {"second_stage": None}})
    assert config.scoring.second_stage is None
    assert load_config(str(config.write()), {}).scoring.second_stage is None


def test_nested_sections_merge_by_field() -> None:
    paper = resolve("paper", scoring={"one_step": {"learning_rate": 1e-3}})
    assert paper.scoring.options == OneStepOptions("exact", "raw", "sgd", 1e-3)
    assert resolve("paper", scoring=ScoringConfig(sections={"one_step": {"learning_rate": 1e-3}})) == paper
    look = resolve(scoring={"second_look": {"rounds": 2}}).scoring
    assert (look.second_stage, look.stage_options) == ("second_look", SecondLookOptions(rounds=2))


@pytest.mark.parametrize("nothing", [None, {}, OneStepOptions()])
def test_an_empty_section_leaves_the_strategys_fields(nothing: Any) -> None:
    assert resolve("paper", scoring={"one_step": nothing}).scoring == resolve("paper").scoring


def test_options_changed_afterwards_are_given_and_nothing_else_is() -> None:
    config = ScoringConfig(part_size=7).with_options(utility="raw")
    assert resolve(scoring=config).given == {"scoring": {"part_size": 7, "one_step": {"utility": "raw"}}}
    look = ScoringConfig(second_stage="second_look").with_stage_options(rounds=1)
    assert resolve("one_step", scoring=look).given == {
        "scoring": {"second_stage": "second_look", "second_look": {"rounds": 1}}
    }


def test_paper_is_the_papers_method() -> None:
    config = build_config({"run_dir": "run", "strategy": "paper"})
    assert config.scoring.options == OneStepOptions(estimator="exact", utility="raw", update_rule="sgd")
    assert config.selection.order == "top"
    assert config.scoring.second_stage is None


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"scoring": {"one_step": {"utility": "mean_cosine"}}},
            "strategy 'paper' .* scoring.one_step.utility 'raw', got 'mean_cosine'",
        ),
        ({"scoring": {"one_step": {"update_rule": "lion"}}}, "scoring.one_step.update_rule 'sgd', got 'lion'"),
        ({"scoring": {"second_stage": "second_look"}}, "scoring.second_stage None, got 'second_look'"),
        ({"selection": {"order": "setwise"}}, "selection.order 'top', got 'setwise'"),
        ({"scoring": {"scorer": "random"}}, "scoring.scorer 'one_step', got 'random'"),
        ({"selection": {"drop_toxic": True}}, "selection.drop_toxic False, got True"),
        ({"selection": {"length_strata": 4}}, "selection.length_strata 1, got 4"),
    ],
)
def test_paper_cannot_be_changed(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config({"run_dir": "run", "strategy": "paper", **sections})


def test_paper_cannot_be_changed_by_instances_either() -> None:
    with pytest.raises(ConfigError, match=r"scoring\.one_step\.utility 'raw', got 'relative'"):
        resolve("paper", scoring=ScoringConfig(sections={"one_step": {"utility": "relative"}}))
    with pytest.raises(ConfigError, match=r"selection\.order 'top', got 'diverse'"):
        resolve("paper", selection=SelectionConfig(order="diverse"))


@pytest.mark.parametrize("estimator", ["reverse", "forward"])
def test_paper_may_be_estimated_to_first_order(estimator: str) -> None:
    config = build_config({"run_dir": "run", "strategy": "paper", "scoring": {"one_step": {"estimator": estimator}}})
    assert config.scoring.options == OneStepOptions(estimator, "raw", "sgd")


@pytest.mark.parametrize("more", [{}, {"one_step": {"estimator": "reverse"}}, {"one_step": {"learning_rate": None}}])
def test_paper_may_step_exactly_near_the_cut_alone(more: dict[str, Any]) -> None:
    """Then first order ranks, which the cascade settles."""
    choice = resolve("paper", scoring={"second_stage": "cascade", **more}, selection={"keep_ratio": 0.2})
    assert choice.scoring.options == OneStepOptions("reverse", "raw", "sgd")
    assert choice.scoring.stage_options.keep_ratio == 0.2
    with pytest.raises(ConfigError, match="it goes with estimator 'reverse' and utility 'raw'"):
        resolve("paper", scoring={"second_stage": "cascade", "one_step": {"estimator": "exact"}})


@pytest.mark.parametrize("estimator", ["forward", "exact"])
def test_every_estimator_goes_with_auto(estimator: str) -> None:
    scoring = {"one_step": {"estimator": estimator, "utility": "raw"}}
    assert build_config({"run_dir": "run", "scoring": scoring}).scoring.second_stage == "second_look"


def test_auto_asks_for_vectors_where_they_can_be_had() -> None:
    assert resolve("auto").scoring.embedding_size == 256
    assert resolve("auto", scoring={"one_step": {"estimator": "reverse"}}).scoring.embedding_size == 256
    assert resolve("auto", scoring={"one_step": {"estimator": "exact", "utility": "raw"}}).scoring.embedding_size == 0
    assert resolve("auto", scoring={"embedding_size": 64}).scoring.embedding_size == 64
    assert resolve("one_step").scoring.embedding_size == 0
    # Another order of the same scores must not ask for other scores.
    assert resolve("auto", selection={"order": "top"}).scoring == resolve("auto").scoring
    assert resolve("auto", scoring={"second_stage": None}).scoring.embedding_size == 0


def test_a_cascade_comes_in_place_of_the_second_look() -> None:
    scoring = {"one_step": {"utility": "raw"}, "second_stage": "cascade"}
    config = build_config({"run_dir": "run", "scoring": scoring})
    assert config.scoring.second_stage == "cascade"
    assert config.scoring.columns == {"utility_first_order", "utility_exact"}


def test_other_scorers_are_left_alone() -> None:
    config = build_config({"run_dir": "run", "scoring": {"scorer": "random"}})
    assert config.scoring == ScoringConfig("random")
    assert config.selection == SelectionConfig()


def test_a_written_configuration_replays_itself(tmp_path) -> None:
    for name in STRATEGIES:
        config = build_config({"run_dir": str(tmp_path / name), "strategy": name})
        assert load_config(str(config.write()), {}) == config


@pytest.mark.parametrize("first", STRATEGIES)
@pytest.mark.parametrize("then", STRATEGIES)
def test_another_strategy_replaces_what_the_first_has_written(tmp_path, first: str, then: str) -> None:
    given = {"run_dir": str(tmp_path), "strategy": first, "scoring": {"part_size": 7}}
    path = str(build_config(given).write())
    assert load_config(path, {"strategy": then}) == build_config({**given, "strategy": then})


def test_what_a_file_by_hand_gives_outweighs_another_strategy_too(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"run_dir: {tmp_path}\nstrategy: auto\nduplicates: {{within_pool: drop}}\n")
    assert load_config(str(path), {"strategy": "one_step"}).duplicates.within_pool == "drop"
    path.write_text(f"run_dir: {tmp_path}\nstrategy: one_step\nduplicates: {{within_pool: report}}\n")
    assert load_config(str(path), {"strategy": "auto"}).duplicates.within_pool == "report"


def test_an_unknown_strategy_is_named() -> None:
    names = "'auto', 'thorough', 'one_step', 'paper'"
    with pytest.raises(ConfigError, match=f"strategy must be one of {names}, got 'papers'"):
        build_config({"run_dir": "run", "strategy": "papers"})
    with pytest.raises(ConfigError, match=r"got 'setwise'.*\(selection\.order has setwise\)"):
        resolve("setwise")


@pytest.mark.parametrize("wrong", [3, "top", [("order", "top")], ScoringConfig()])
def test_a_section_is_a_mapping_or_an_instance_of_its_class(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="selection must hold fields and values, or be a SelectionConfig, got"):
        resolve(selection=wrong)


@pytest.mark.parametrize("name", ["auto", "paper"])
def test_options_that_are_no_section_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"section scoring\.one_step must hold fields and values, got 3"):
        resolve(name, scoring={"one_step": 3})
    with pytest.raises(ConfigError, match=r"scoring\.one_step must be a OneStepOptions, got a SecondLookOptions"):
        resolve(name, scoring=ScoringConfig.from_mapping({"one_step": SecondLookOptions()}))
