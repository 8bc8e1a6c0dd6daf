"""Whole ways of selecting by one name."""

from __future__ import annotations

import pytest

from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.errors import ConfigError
from ost_hf.runs.config import build_config, load_config
from ost_hf.scoring.config import ScoringConfig
from ost_hf.selection.config import SelectionConfig
from ost_hf.strategy import STRATEGIES, apply_strategy


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_a_valid_configuration(name: str) -> None:
    sections = apply_strategy(name, {})
    ScoringConfig(**sections["scoring"])
    SelectionConfig(**sections["selection"])


def test_auto_is_the_default() -> None:
    config = build_config({"run_dir": "run"})
    assert config.strategy == "auto"
    assert config.scoring.second_look
    assert config.scoring.sketch_size == 0
    assert config.selection.strategy == "auto"


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
    config = build_config({"run_dir": "run", "scoring": {"second_look": False}, "selection": {"strategy": "top"}})
    assert not config.scoring.second_look
    assert config.selection.strategy == "top"


def test_paper_is_the_papers_method() -> None:
    config = build_config({"run_dir": "run", "strategy": "paper"})
    assert (config.scoring.estimator, config.scoring.utility, config.scoring.update_rule) == ("exact", "raw", "sgd")
    assert config.selection.strategy == "top"
    assert not config.scoring.second_look


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"scoring": {"utility": "mean_cosine"}}, "strategy 'paper' .* scoring.utility 'raw', got 'mean_cosine'"),
        ({"scoring": {"second_look": True}}, "scoring.second_look False, got True"),
        ({"selection": {"strategy": "setwise"}}, "selection.strategy 'top', got 'setwise'"),
        ({"scoring": {"scorer": "random"}}, "scoring.scorer 'one_step', got 'random'"),
        ({"selection": {"drop_toxic": True}}, "selection.drop_toxic False, got True"),
        ({"selection": {"length_strata": 4}}, "selection.length_strata 1, got 4"),
    ],
)
def test_paper_cannot_be_changed(sections: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config({"run_dir": "run", "strategy": "paper", **sections})


def test_paper_may_be_estimated_to_first_order() -> None:
    config = build_config({"run_dir": "run", "strategy": "paper", "scoring": {"estimator": "reverse"}})
    assert (config.scoring.estimator, config.scoring.utility) == ("reverse", "raw")


@pytest.mark.parametrize("estimator", ["forward", "exact", "cascade"])
def test_every_estimator_goes_with_auto_and_cascade_without_its_second_look(estimator: str) -> None:
    config = build_config({"run_dir": "run", "scoring": {"estimator": estimator, "utility": "raw"}})
    assert config.scoring.second_look == (estimator != "cascade")


def test_other_scorers_are_left_alone() -> None:
    config = build_config({"run_dir": "run", "scoring": {"scorer": "random"}})
    assert not config.scoring.second_look


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
    with pytest.raises(ConfigError, match="strategy must be one of 'auto', 'one_step', 'paper', got 'papers'"):
        build_config({"run_dir": "run", "strategy": "papers"})
