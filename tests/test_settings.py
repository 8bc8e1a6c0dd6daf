"""Configurations as mappings and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any, Literal, Optional, Union

import pytest
import yaml

from ost_hf.data.config import AnchorConfig, DatasetConfig, EncodingConfig
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.errors import ConfigError
from ost_hf.evaluation.config import EvaluationConfig
from ost_hf.hub.config import HubConfig
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scorers.deita.options import DeitaOptions
from ost_hf.scorers.judge.options import JudgeOptions
from ost_hf.scorers.less.options import LessOptions
from ost_hf.scorers.one_step.options import OneStepOptions
from ost_hf.scoring.cascade.options import CascadeOptions
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.second_look.options import SecondLookOptions
from ost_hf.selection.config import SelectionConfig
from ost_hf.settings import (
    as_mapping,
    build,
    changed,
    given_fields,
    kinds_of,
    laid_over,
    name_differences,
    remembers_given,
    typed,
)


class Colour(Enum):
    RED = "red"


@remembers_given
@dataclass(frozen=True)
class Inner:
    depth: int = 1
    name: str | None = None


@remembers_given
@dataclass(frozen=True)
class Outer:
    size: int = field(metadata={"help": "how large"})
    rate: float = 0.5
    flag: bool = False
    words: list[str] = field(default_factory=list)
    more: Mapping[str, Any] = field(default_factory=dict)
    made: int = field(default=0, init=False)


# -- types


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, 3, 3),
        (int, 3.0, 3),
        (float, 3, 3.0),
        (float, 2.5, 2.5),
        (str, "a", "a"),
        # A model's revision or a column may look like a number in YAML.
        (str, 7, "7"),
        (bool, True, True),
        (list[str], ["a"], ["a"]),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (int | None, None, None),
        (Optional[float], 1, 1.0),  # noqa: UP045
        (Union[int, str], "a", "a"),  # noqa: UP007
        (int | float, 2, 2),
        (float | str, 2, 2.0),
        (Colour, "red", "red"),
        (Colour | str, Colour.RED, Colour.RED),
        (Any, object, object),
        (Mapping[str, Any], {"a": 1}, {"a": 1}),
        (tuple[str, ...], ["a"], ["a"]),
        (Literal["a"], "b", "b"),
    ],
)
def test_values_take_the_type_of_their_field(hint: Any, value: Any, expected: Any) -> None:
    found = typed("section.field", value, kinds_of(hint))
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("hint", "value", "wanted"),
    [
        (int, 2.5, "int"),
        (int, "3", "int"),
        # A switch is no number, and a number no switch.
        (int, True, "int"),
        (float, False, "float"),
        (str, True, "str"),
        (bool, 1, "bool"),
        (bool, "true", "bool"),
        (float, "0.5", "float"),
        (float | None, "0.5", "float or null"),
        (str, None, "str"),
        (str, ["a"], "str"),
        (list[str], "a", "list"),
        (dict[str, int] | None, [1], "dict or null"),
        (float, float, "float"),
    ],
)
def test_values_of_another_type_are_refused(hint: Any, value: Any, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        typed("section.field", value, kinds_of(hint))
    assert str(caught.value) == f"section.field must be {wanted}, got {value!r}"


# -- build


def test_a_mapping_becomes_a_configuration() -> None:
    made = build(Outer, {"size": 4.0, "rate": 1, "words": ["a"], "more": {"x": {"y": 1}}}, "outer")
    assert made == Outer(4, 1.0, False, ["a"], {"x": {"y": 1}})
    assert type(made.size) is int
    assert type(made.rate) is float


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"size": 1, "rat": 2},
            r"unknown field of section outer 'rat' \(did you mean 'rate'\?\); there are: flag, more,",
        ),
        ({"size": 1, "zzz": 2}, r"unknown field of section outer 'zzz'; there are: flag, more, rate, size, words$"),
        # What the class makes itself is no setting.
        ({"size": 1, "made": 2}, r"unknown field of section outer 'made'"),
        ({"size": 1, 3: 2}, r"unknown field of section outer '3'"),
        ({}, r"outer\.size is not set: how large"),
        ({"size": "many"}, r"outer\.size must be int, got 'many'"),
        ("size", r"section outer must hold fields and values, got 'size'"),
        (["size"], r"section outer must hold fields and values, got \['size'\]"),
        (None, r"section outer must hold fields and values, got None"),
    ],
)
def test_what_is_no_configuration_is_refused_by_its_name(values: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Outer, values, "outer")


# -- round trips


def every_value(config: Any) -> dict[str, Any]:
    """The values of all fields, those of nested configurations by their fields."""
    return {
        item.name: every_value(value) if is_dataclass(value) and not isinstance(value, type) else value
        for item in fields(config)
        for value in (getattr(config, item.name),)
    }


CONFIGURATIONS = [
    Outer(3, rate=0.25, words=["a"]),
    DatasetConfig(path="a/b"),
    AnchorConfig(path="a.jsonl", size=5, stratify_by="topic", overlap="drop"),
    EncodingConfig(),
    DuplicatesConfig(within_pool="drop", near=True),
    ProxyConfig("a/b", warmup_fraction=0.1),
    SelectionConfig(keep_ratio=0.3, order="top"),
    EvaluationConfig(path="a.jsonl"),
    HubConfig(repo_id="me/kept"),
    OneStepOptions(utility="raw"),
    LessOptions(2),
    JudgeOptions(model="m", lowest=0.0),
    DeitaOptions(complexity_model="m"),
    SecondLookOptions(rounds=2),
    CascadeOptions(band=0.2),
    ScoringConfig(),
    ScoringConfig(scorer="less", sections={"less": {"checkpoints": 2}}, group_by="topic"),
    ScoringConfig(
        second_stage="cascade", sections={"one_step": OneStepOptions(utility="raw"), "cascade": {"band": 0.2}}
    ),
]


@pytest.mark.parametrize("config", CONFIGURATIONS, ids=lambda config: type(config).__name__)
@pytest.mark.parametrize("only_given", [False, True])
def test_a_configuration_survives_being_a_mapping_in_any_format(config: Any, only_given: bool) -> None:
    mapping = as_mapping(config, only_given)
    for copy in (mapping, json.loads(json.dumps(mapping)), yaml.safe_load(yaml.safe_dump(mapping))):
        again = build(type(config), copy, "section")
        assert as_mapping(again) == as_mapping(config)
        if not isinstance(config, ScoringConfig):  # its sections hold defaults too, where all is told
            assert again == config
            assert every_value(again) == every_value(config)
        assert as_mapping(again, only_given=True) == mapping


def test_a_mapping_has_plain_values_and_a_copy_of_nested_configurations() -> None:
    @dataclass(frozen=True)
    class Both:
        inner: Inner = field(default_factory=Inner)
        kind: type = int

    assert as_mapping(Both(Inner(2))) == {"inner": {"depth": 2, "name": None}, "kind": int}


# -- what was given


def test_fields_that_were_given_are_remembered_defaults_too() -> None:
    assert as_mapping(Outer(3), only_given=True) == {"size": 3}
    assert as_mapping(Outer(3, 0.5), only_given=True) == {"size": 3, "rate": 0.5}
    assert as_mapping(Outer(size=3, flag=False), only_given=True) == {"size": 3, "flag": False}
    assert as_mapping(build(Outer, {"size": 3, "rate": 0.5}, "outer"), only_given=True) == {"size": 3, "rate": 0.5}
    # Equality is of values alone.
    assert Outer(3) == Outer(3, 0.5)
    assert as_mapping(Outer(3)) == as_mapping(Outer(3, 0.5))


def test_what_was_given_of_a_section() -> None:
    assert given_fields("inner", None, Inner) == {}
    assert given_fields("inner", {"dept": 1}, Inner) == {"dept": 1}
    assert given_fields("inner", Inner(depth=1), Inner) == {"depth": 1}
    assert given_fields("inner", Inner(), Inner) == {}
    assert given_fields("scoring", {"scorer": "less", "less": LessOptions(4)}, ScoringConfig) == {
        "scorer": "less",
        "less": {"checkpoints": 4},
    }
    with pytest.raises(ConfigError, match="inner must hold fields and values, or be a Inner, got 'deep'"):
        given_fields("inner", "deep", Inner)


def test_fields_that_are_changed_are_given_too() -> None:
    assert as_mapping(changed(Inner(depth=2), name="a"), only_given=True) == {"depth": 2, "name": "a"}
    assert as_mapping(changed(Inner(), depth=1), only_given=True) == {"depth": 1}
    assert changed(Inner(), depth=3) == Inner(3)


# -- laid over one another


def test_fields_are_laid_over_fields_and_of_sections_each_by_itself() -> None:
    below = {"scorer": "one_step", "one_step": {"utility": "raw", "estimator": "exact"}, "seed": 1}
    above = {"one_step": {"utility": "relative"}, "seed": None, "less": {"checkpoints": 2}}
    assert laid_over(below, above) == {
        "scorer": "one_step",
        "one_step": {"utility": "relative", "estimator": "exact"},
        "seed": None,
        "less": {"checkpoints": 2},
    }
    assert below["one_step"] == {"utility": "raw", "estimator": "exact"}
    assert laid_over({"a": 1}, {"a": {"b": 2}}) == {"a": {"b": 2}}
    # An empty section in YAML changes nothing.
    assert laid_over({"a": {"b": 2}}, {"a": None}) == {"a": {"b": 2}}
    assert laid_over({"a": 2}, {"a": None}) == {"a": None}


def test_differences_are_named_by_their_path() -> None:
    old = {"scoring": {"seed": 0, "one_step": {"utility": "raw"}}, "pool": "a", "same": 1}
    new = {"scoring": {"seed": 0, "one_step": {"utility": "relative"}}, "anchors": "b", "same": 1}
    assert name_differences(old, new) == [
        "anchors was None, now 'b'",
        "pool was 'a', now None",
        "scoring.one_step.utility was 'raw', now 'relative'",
    ]
    assert name_differences(old, old) == []
