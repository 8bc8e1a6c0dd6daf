"""Whole ways of choosing rows, by one name: defaults for the sections ``duplicates``, ``scoring`` and ``selection``.

* ``auto``      One-step utilities and losses choose what a proxy learns from, and that proxy's answers what a second
                one learns from, each for a bounded number of steps. The look of the second one tells clean rows from
                corrupted ones. Rows as clean as the anchors and of their kind come first; of too many of them there is
                a draw, hard rows more often unless corruption is hardly told apart. One of several copies is scored,
                and no near copy of an anchor: a copy of a clean row is as clean, and nothing else keeps it out.
* ``thorough``  The same with a second look in three rounds of two proxies, each of which learns from one half of the
                pool in full and is asked about the other: better at telling rows apart, at several times the price.
* ``one_step``  The one-step utility alone (mean cosine, AdamW), highest first.
* ``paper``     The paper's method to the letter, for ever: the drop of the mean anchor loss after one SGD step, that is
                simulated for each row, highest first.

Every door (Python functions, trainers, YAML and flags, studies) comes through :func:`resolve`. What ``order: auto``
does with scores is in :mod:`ost_hf.selection.auto`.
Standard library only: ``--help`` reads this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.errors import ConfigError, require_choice
from ost_hf.scoring.config import DEFAULT_SCORER, ScoringConfig
from ost_hf.selection.config import ORDERS, SelectionConfig
from ost_hf.settings import Section, build, given_fields, laid_over

DEFAULT_STRATEGY = "auto"

_AIMED: dict[str, Section] = {
    "duplicates": {"within_pool": "drop", "near": True, "anchors": "drop"},
    "scoring": {"second_stage": "second_look", "embedding_size": 256},
    "selection": {"order": "auto"},
}

STRATEGIES: dict[str, dict[str, Section]] = {
    "auto": _AIMED,
    "thorough": {
        **_AIMED,
        "scoring": {
            **_AIMED["scoring"],
            "second_look": {"rounds": 3, "cross_fit": True, "learn_from": "highest_utility", "max_steps": None},
        },
    },
    "one_step": {"scoring": {"second_stage": None}, "selection": {"order": "top"}},
    "paper": {
        "scoring": {
            "scorer": DEFAULT_SCORER,
            DEFAULT_SCORER: {"estimator": "exact", "utility": "raw", "update_rule": "sgd"},
            "second_stage": None,
        },
        "selection": {"order": "top", "aggregate": None, "length_strata": 1, "balance_by": None, "drop_toxic": False},
    },
}

# The sections that a strategy speaks of, and the class of each.
SECTIONS: dict[str, type] = {"duplicates": DuplicatesConfig, "scoring": ScoringConfig, "selection": SelectionConfig}

# What may be changed of `paper`: first order ranks as the simulated step does, at a small part of its cost
# (docs/scoring.md has both), and exact steps near the cut are the simulated step where it matters.
_PAPER_LETS: dict[str, tuple[str, ...]] = {"estimator": ("reverse", "forward", "exact"), "second_stage": ("cascade",)}


@dataclass(frozen=True)
class Choice:
    """How rows are chosen: what was given, and what it comes to over the strategy's defaults.

    Attributes:
        strategy: The name.
        given: The fields that were given, by section.
        duplicates: What is done about copies.
        scoring: How the pool is scored.
        selection: How much is kept, and in which order.
    """

    strategy: str
    given: Mapping[str, Section]
    duplicates: DuplicatesConfig
    scoring: ScoringConfig
    selection: SelectionConfig

    def selecting(self, **fields: Any) -> Choice:
        """The same with other fields of ``selection``, as if they had been given."""
        given = {**self.given, "selection": {**self.given.get("selection", {}), **fields}}
        return resolve(self.strategy, **given)


def resolve(
    strategy: str | None = None, *, duplicates: Any = None, scoring: Any = None, selection: Any = None
) -> Choice:
    """Lays what was given over a strategy's defaults.

    Args:
        strategy: One of ``STRATEGIES``; ``auto`` by default.
        duplicates: What was given of that section: a mapping, or a ``DuplicatesConfig``, of which the fields count that
            it was made with.
        scoring: The same, or a ``ScoringConfig``.
        selection: The same, or a ``SelectionConfig``.

    Returns:
        The choice. With another scorer than the default one a strategy has no defaults: there is no one-step utility to
        look at again.

    Raises:
        ConfigError: For an unknown strategy, field or value, or where ``paper`` would not be the paper's method any
        more.
    """
    name = DEFAULT_STRATEGY if strategy is None else strategy
    try:
        require_choice("strategy", name, STRATEGIES)
    except ConfigError as error:
        raise ConfigError(f"{error} (selection.order has {name})" if name in ORDERS else str(error)) from None
    values = {"duplicates": duplicates, "scoring": scoring, "selection": selection}
    given = {section: given_fields(section, values[section], cls) for section, cls in SECTIONS.items()}
    settled = {section: laid_over(_defaults(name, given).get(section, {}), given[section]) for section in SECTIONS}
    built: dict[str, Any] = {section: build(cls, settled[section], section) for section, cls in SECTIONS.items()}
    built["scoring"] = _at_cut(built["scoring"], built["selection"])
    return Choice(name, {section: fields for section, fields in given.items() if fields}, **built)


def _defaults(name: str, given: Mapping[str, Section]) -> dict[str, Section]:
    """A strategy's fields, as far as they go with what was given."""
    scoring = given["scoring"]
    if name == "paper":
        for section, fixed in STRATEGIES[name].items():
            _refuse_changes(section, given[section], fixed)
        if scoring.get("second_stage") in _PAPER_LETS["second_stage"]:
            # That stage settles first order by exact steps.
            return laid_over(STRATEGIES[name], {"scoring": {DEFAULT_SCORER: {"estimator": "reverse"}}})
    elif scoring.get("scorer", DEFAULT_SCORER) != DEFAULT_SCORER:
        return {}
    fields = dict(STRATEGIES[name].get("scoring", {}))
    if scoring.get("second_stage", "second_look") != "second_look":
        fields.pop("second_look", None)
    if not _gives_vectors(scoring):
        fields.pop("embedding_size", None)
    return {**STRATEGIES[name], "scoring": fields}


def _gives_vectors(scoring: Section) -> bool:
    """Whether what was given goes with a vector for each row, which the second look's rows are chosen by."""
    options = scoring.get(DEFAULT_SCORER)
    given = options.get("estimator") if isinstance(options, Mapping) else getattr(options, "estimator", None)
    return scoring.get("second_stage", "second_look") == "second_look" and given in (None, "reverse")


def _at_cut(scoring: ScoringConfig, selection: SelectionConfig) -> ScoringConfig:
    """A second stage that works near the cut knows of the selection's, where it names none of its own."""
    options = scoring.stage_options
    if not hasattr(options, "at_cut"):
        return scoring
    settled = options.at_cut(selection.keep_ratio, selection.other_cuts)
    return replace(scoring, sections={**scoring.sections, str(scoring.second_stage): settled})


def _refuse_changes(section: str, given: Section, fixed: Section) -> None:
    for key, value in fixed.items():
        if isinstance(value, Mapping):
            inner = given.get(key)  # what is no section is refused where it is built
            _refuse_changes(f"{section}.{key}", dict(inner) if isinstance(inner, Mapping) else {}, dict(value))
        elif key in given and given[key] != value and given[key] not in _PAPER_LETS.get(key, ()):
            raise ConfigError(
                f"strategy 'paper' is the paper's method to the letter, with {section}.{key} {value!r}, got "
                f"{given[key]!r}: use strategy 'one_step' or 'auto' to change it"
            )
