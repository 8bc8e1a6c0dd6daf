"""The ``scoring`` section: fields of the loop, and a section for each scorer and second stage."""

from __future__ import annotations

from typing import Any

import pytest

from ost_hf.errors import ConfigError
from ost_hf.scorers.judge.options import JudgeOptions
from ost_hf.scorers.less.options import LessOptions
from ost_hf.scorers.one_step.options import OneStepOptions
from ost_hf.scorers.registry import SCORERS
from ost_hf.scoring.config import SHARED, ScoringConfig
from ost_hf.settings import as_mapping

NESTED = {
    "scorer": "one_step",
    "one_step": {"utility": "raw", "learning_rate": 1},
    "second_stage": "cascade",
    "cascade": {"band": 0.2},
    "part_size": 64,
}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, r"scoring\.batch_size must be an integer >= 1"),
        ({"batch_tokens": 0}, r"scoring\.batch_tokens must be an integer >= 1"),
        ({"sketch_size": -1}, r"scoring\.sketch_size must be an integer >= 0"),
        ({"scorer": "one-step"}, r"unknown scorer 'one-step' \(did you mean 'one_step'\?\); there are: .*judge"),
        ({"second_stage": "2nd_look"}, r"unknown second stage '2nd_look' \(did you mean 'second_look'\?\); there are"),
        ({"second_look": {"rounds": 2.5}}, r"scoring\.second_look\.rounds must be int, got 2\.5"),
        ({"second_look": {"rounds": 0}}, r"scoring\.second_look\.rounds must be an integer >= 1, got 0"),
        ({"cascade": {"keep_ratio": 0}}, r"scoring\.cascade\.keep_ratio must be a number > 0"),
        (
            {"one_step": {"estimater": "exact"}},
            r"unknown field of section scoring\.one_step 'estimater' \(did",
        ),
        (
            {"one_stop": {"estimator": "exact"}},
            r"unknown field of section scoring 'one_stop' \(did you mean 'one_st",
        ),
        ({"estimator": "exact"}, r"unknown field of section scoring 'estimator'.*one_step"),
        ({"length": {"power": 2}}, r"length has no options of its own: remove section scoring\.length"),
        ({"one_step": "raw"}, r"section scoring\.one_step must hold fields and values, got 'raw'"),
        ({"scorer": "judge"}, r"scorer 'judge' needs scoring\.judge\.model"),
        (
            {"second_stage": "cascade"},
            r"cascade settles raw first-order utilities .*\(scoring\.one_step\), got 'reverse' and 'mean_cosine'",
        ),
        ({"second_stage": "cascade", "one_step": {"utility": "raw"}, "group_by": "topic"}, "cascade mixes first-order"),
        ({"scorer": "length", "second_stage": "second_look"}, "goes with scorer 'one_step', not with 'length'"),
    ],
)
def test_settings_are_checked_where_they_stand(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScoringConfig.from_mapping(settings)


def test_options_of_another_class_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"scoring\.judge must be a JudgeOptions, got a LessOptions"):
        ScoringConfig(sections={"judge": LessOptions()})


def test_options_stand_in_a_section_of_their_name() -> None:
    config = ScoringConfig.from_mapping(NESTED)
    assert config.options == config.section("one_step") == OneStepOptions(utility="raw", learning_rate=1.0)
    assert config.stage_options.band == 0.2
    assert config.section("less") == LessOptions()
    assert config == ScoringConfig(
        second_stage="cascade",
        sections={"one_step": OneStepOptions(utility="raw", learning_rate=1.0), "cascade": config.stage_options},
        part_size=64,
    )


def test_a_configuration_survives_being_a_mapping() -> None:
    config = ScoringConfig.from_mapping(NESTED)
    assert ScoringConfig.from_mapping(as_mapping(config)).options == config.options
    assert ScoringConfig.from_mapping(as_mapping(config)).identity() == config.identity()
    given = as_mapping(config, only_given=True)
    assert given == {**NESTED, "one_step": {"utility": "raw", "learning_rate": 1.0}}
    assert ScoringConfig.from_mapping(given) == config


def test_only_given_fields_are_told_of_an_instance() -> None:
    assert as_mapping(ScoringConfig(), only_given=True) == {}
    config = ScoringConfig(scorer="judge", sections={"judge": JudgeOptions(model="m", retries=5)})
    # A default that was given is given.
    assert as_mapping(config, only_given=True) == {"scorer": "judge", "judge": {"model": "m", "retries": 5}}


def test_options_can_be_changed() -> None:
    config = ScoringConfig.from_mapping(NESTED)
    assert config.with_options(learning_rate=2.0).options == OneStepOptions(utility="raw", learning_rate=2.0)
    assert config.with_options(learning_rate=2.0).stage_options == config.stage_options
    assert config.with_stage_options(band=0.3).stage_options.band == 0.3
    assert config.with_stage_options(band=0.3).options == config.options


def test_what_decides_the_numbers_is_the_identity() -> None:
    identity = ScoringConfig.from_mapping(NESTED).identity()
    assert identity["one_step"]["estimator"] == "reverse"
    assert identity["cascade"]["band"] == 0.2
    assert ScoringConfig.from_mapping({**NESTED, "part_size": 8, "batch_size": 3}).identity() == identity
    assert ScoringConfig.from_mapping({**NESTED, "seed": 1}).identity() != identity
    # Options of others do nothing, and do not make another run.
    assert ScoringConfig.from_mapping({**NESTED, "less": {"checkpoints": 2}}).identity() == identity


def test_settings_that_a_scorer_does_not_read_are_named() -> None:
    asked = {"group_by": "topic", "per_anchor": True, "sketch_size": 8}
    assert ScoringConfig(**asked).idle == []
    assert ScoringConfig(scorer="rds", **asked).idle == ["scoring.sketch_size"]
    assert ScoringConfig(scorer="less", **asked).idle == ["scoring.per_anchor", "scoring.sketch_size"]
    assert ScoringConfig(scorer="length", sections={"one_step": {"utility": "raw"}}).idle == ["scoring.one_step"]


def test_every_scorer_of_ours_says_what_it_reads() -> None:
    for name in SCORERS.names():
        registered = SCORERS.find(name)
        if registered.build.__module__.startswith("ost_hf."):
            assert registered.columns is not None, name
            assert set(registered.columns) <= {"always", *SHARED}, name


def test_columns_are_known_before_a_row_is_scored() -> None:
    asked = {"group_by": "topic", "per_anchor": True, "sketch_size": 8}
    assert ScoringConfig(**asked).columns == {"group:", "anchor_utilities", "sketch"}
    assert ScoringConfig(scorer="rds", per_anchor=True).columns == {"anchor_similarities"}
    assert ScoringConfig(scorer="length", **asked).columns == set()
    assert ScoringConfig.from_mapping(NESTED).columns == {"utility_first_order", "utility_exact"}
    assert "corrupted_p" in (ScoringConfig(second_stage="second_look").columns or ())
