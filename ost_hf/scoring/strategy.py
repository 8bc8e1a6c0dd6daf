"""Whole ways of selecting, by one name: defaults for the sections ``scoring`` and ``selection``.

* ``auto``      one-step utilities choose what two proxies learn from, a second look with those tells clean rows from
                corrupted ones, and among rows as clean as the anchors a set is chosen that fits the anchors together
* ``one_step``  the one-step utility alone (mean cosine, AdamW), highest first
* ``paper``     the paper's method to the letter, for ever: the drop of the mean anchor loss after one SGD step,
                simulated for each row, highest first

Standard library only: ``--help`` reads this.
"""

from __future__ import annotations

from typing import Any

from ost_hf.errors import ConfigError, require_choice

Section = dict[str, Any]

DEFAULT_STRATEGY = "auto"

STRATEGIES: dict[str, dict[str, Section]] = {
    "auto": {"scoring": {"second_look": True, "sketch_size": 512}, "selection": {"strategy": "auto"}},
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


def apply_strategy(name: str, scoring: Section, selection: Section) -> tuple[Section, Section]:
    """Lays what was given over a strategy's defaults.

    Args:
        name: One of ``STRATEGIES``.
        scoring: Fields that were given.
        selection: Fields that were given.

    Returns:
        Both sections with the strategy's fields where nothing else was given. Another scorer than ``one_step`` is
        left as it is: there is no one-step utility to look at.

    Raises:
        ConfigError: For an unknown name, or where ``paper`` would not be the paper's method any more.
    """
    require_choice("strategy", name, STRATEGIES)
    defaults = STRATEGIES[name]
    if scoring.get("scorer", "one_step") != "one_step" and name != "paper":
        return scoring, selection
    if name == "paper":
        _refuse_changes("scoring", scoring, defaults["scoring"])
        _refuse_changes("selection", selection, defaults["selection"])
    wanted = dict(defaults["scoring"])
    if scoring.get("estimator", "reverse") != "reverse":
        wanted.pop("sketch_size", None)  # no gradients, no sketches
    if scoring.get("estimator") == "cascade":
        wanted.pop("second_look", None)
    return {**wanted, **scoring}, {**defaults["selection"], **selection}


def _refuse_changes(section: str, given: Section, fixed: Section) -> None:
    for key, value in fixed.items():
        if key != _PAPER_LETS and key in given and given[key] != value:
            raise ConfigError(
                f"strategy 'paper' is the paper's method to the letter, with {section}.{key} {value!r}, got "
                f"{given[key]!r}: use strategy 'one_step' or 'auto' to change it"
            )
