"""Whole ways of selecting, by one name: defaults for the sections ``duplicates``, ``scoring`` and ``selection``.

* ``auto``      one-step utilities choose what two proxies learn from; a second look with those and the utilities tell
                clean rows from corrupted ones; rows as clean as the anchors come first, and of too many of them there
                is a draw, hard rows more often unless corruption is hardly told apart; of exact and near copies
                one is scored, near copies of anchors are not: a copy of a clean row is as clean, and nothing else
                keeps it out
* ``one_step``  the one-step utility alone (mean cosine, AdamW), highest first
* ``paper``     the paper's method to the letter, for ever: the drop of the mean anchor loss after one SGD step,
                simulated for each row, highest first

Standard library only: ``--help`` reads this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ost_hf.errors import ConfigError, require_choice

Section = dict[str, Any]

DEFAULT_STRATEGY = "auto"

STRATEGIES: dict[str, dict[str, Section]] = {
    "auto": {
        "duplicates": {"within_pool": "drop", "near": True, "anchors": "drop"},
        "scoring": {"second_look": True},
        "selection": {"strategy": "auto"},
    },
    "one_step": {"scoring": {"second_look": False}, "selection": {"strategy": "top"}},
    "paper": {
        "scoring": {
            "scorer": "one_step",
            "estimator": "exact",
            "utility": "raw",
            "update_rule": "sgd",
            "second_look": False,
        },
        "selection": {
            "strategy": "top",
            "aggregate": None,
            "length_strata": 1,
            "balance_by": None,
            "drop_toxic": False,
        },
    },
}

# First order ranks as the simulated step does, at a small part of its cost; docs/scoring.md has both.
_PAPER_LETS = "estimator"


def apply_strategy(name: str, given: Mapping[str, Section]) -> dict[str, Section]:
    """Lays what was given over a strategy's defaults.

    Args:
        name: One of ``STRATEGIES``.
        given: Fields that were given, by section.

    Returns:
        The sections that the strategy speaks of, with its fields where nothing else was given. Beside another scorer
        than ``one_step`` nothing is changed: there is no one-step utility to look at.

    Raises:
        ConfigError: For an unknown name, or where ``paper`` would not be the paper's method any more.
    """
    require_choice("strategy", name, STRATEGIES)
    defaults = STRATEGIES[name]
    scoring = given.get("scoring", {})
    if scoring.get("scorer", "one_step") != "one_step" and name != "paper":
        return {section: given.get(section, {}) for section in defaults}
    if name == "paper":
        for section, fixed in defaults.items():
            _refuse_changes(section, given.get(section, {}), fixed)
    wanted = {section: dict(fields) for section, fields in defaults.items()}
    if scoring.get("estimator") == "cascade":
        wanted["scoring"].pop("second_look", None)
    return {section: {**fields, **given.get(section, {})} for section, fields in wanted.items()}


def _refuse_changes(section: str, given: Section, fixed: Section) -> None:
    for key, value in fixed.items():
        if key != _PAPER_LETS and key in given and given[key] != value:
            raise ConfigError(
                f"strategy 'paper' is the paper's method to the letter, with {section}.{key} {value!r}, got "
                f"{given[key]!r}: use strategy 'one_step' or 'auto' to change it"
            )
