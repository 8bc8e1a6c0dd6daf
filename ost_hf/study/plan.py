"""A study's arms: which run directories there are and the configuration of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ost_hf.errors import ConfigError, require_integer
from ost_hf.runs.config import RunConfig, build_config
from ost_hf.scoring.second_stages import SECOND_STAGES
from ost_hf.study.config import Section, StudyConfig, overlaid

# The sections whose seed is the repetition's: all that is random but the search for near copies.
_SEEDED = ("proxy", "scoring", "selection", "training")

# With one of these a method says by itself how much it keeps.
_CUTS = ("keep_ratio", "keep_count", "min_utility")


@dataclass(frozen=True)
class Group:
    """One setting and one seed: all its arms share their data and run one after another in one process."""

    setting: str
    seed: int
    folder: Path

    @property
    def data(self) -> Path:
        """Where ``prepare`` writes."""
        return self.folder / "data"


@dataclass(frozen=True)
class Arm:
    """One cut of one method's scores and what is trained on it. Without a protocol nothing is trained."""

    keep_ratio: float | None
    protocol: str | None

    @property
    def name(self) -> str:
        """Its folder beside the scores."""
        if self.protocol is None:
            return "untrained"
        return f"keep-{'own' if self.keep_ratio is None else f'{self.keep_ratio:g}'}-{self.protocol}"


def groups(study: StudyConfig) -> list[Group]:
    """All settings with all seeds; seeds outermost, so that an interrupted study has whole repetitions."""
    return [
        Group(setting, seed, study.folder / setting / f"seed-{seed}")
        for seed in study.seeds
        for setting in study.settings
    ]


def seeds_there(study: StudyConfig) -> set[int]:
    """Seeds that have results in the study's folder, whichever the YAML names now."""
    results = (path for name in study.settings for path in (study.folder / name).glob("seed-*/*/*/result.json"))
    folders = {path.parents[2].name for path in results}
    return {int(found[1]) for name in folders if (found := re.fullmatch(r"seed-(-?\d+)", name))}


def repetition(group: Group) -> Group:
    """A stand-in that is the same for all seeds of a setting: what its configuration says holds for all of them."""
    return Group(group.setting, 0, Path("repetition"))


def arms(study: StudyConfig, method: str) -> Iterator[Arm]:
    """The arms of a method."""
    sections = study.methods[method]
    if sections.get("untrained"):
        yield Arm(None, None)
        return
    for protocol in study.protocols:
        for ratio in [None] if _has_own_cut(sections) else study.keep_ratios:
            yield Arm(ratio, protocol)


def _at_one_cut(scoring: Section, study: StudyConfig, method: str) -> Section:
    """A second stage that works near the cut gets the study's only one: all cuts of a study share the scores."""
    stage = scoring.get("second_stage")
    if stage is None or not hasattr(SECOND_STAGES.find(stage).options, "at_cut"):
        return scoring
    options = scoring.get(stage) or {}
    if options.get("keep_ratio") is not None:
        return scoring
    if len(study.keep_ratios) > 1:
        raise ConfigError(f"methods.{method}: with several keep_ratios {stage} needs scoring.{stage}.keep_ratio")
    return {**scoring, stage: {**options, "keep_ratio": study.keep_ratios[0]}}


def _has_own_cut(sections: Section) -> bool:
    return any(key in (sections.get("selection") or {}) for key in _CUTS)


def configuration(study: StudyConfig, group: Group, method: str, arm: Arm | None = None) -> RunConfig:
    """The configuration of a method's scores, or of one of its arms.

    Raises:
        ConfigError: For unknown sections, fields and values.
    """
    sections: Section = {}
    for name, given in (
        ("common", study.common),
        (f"settings.{group.setting}", study.settings[group.setting]),
        (f"methods.{method}", study.methods[method]),
    ):
        if not isinstance(given, dict):
            raise ConfigError(f"{name} must hold sections, got {given!r}")
        sections = overlaid(sections, given)
    for name in ("prepare", "prepare_options"):
        sections.pop(name, None)
    if not _has_own_cut(sections):
        sections["scoring"] = _at_one_cut(sections.get("scoring") or {}, study, method)
    untrained = bool(sections.pop("untrained", False))
    folder = group.folder / method
    sections = filled(sections, group)
    sections["run_dir"] = str(folder if arm is None else folder / arm.name)
    for name in _SEEDED:
        sections[name] = {**(sections.get(name) or {}), "seed": group.seed}
    if (sections.get("anchors") or {}).get("size") is not None:
        sections["anchors"] = {**sections["anchors"], "seed": group.seed}  # another draw of the anchors
    if arm is not None and arm.keep_ratio is not None:
        sections["selection"]["keep_ratio"] = arm.keep_ratio
    if untrained:
        model = (sections.get("target") or {}).get("model")
        sections["evaluation"] = {**(sections.get("evaluation") or {}), "model": model}
    return build_config(sections)


def require_steps(config: RunConfig, method: str) -> None:
    """Raises ``ConfigError`` where a method is to be trained and nothing says for how many steps.

    Without a number the Trainer counts epochs, of fewer rows fewer steps: that is no Protocol B, whatever it is called.
    """
    require_integer(
        f"training.max_steps of method {method}",
        config.training.get("max_steps"),
        at_least=1,
        remedy="set it in common.training; Protocol B trains every selection for so many steps, A for so many times "
        "the kept share",
    )


def require_evaluation(config: RunConfig, method: str) -> None:
    """Raises ``ConfigError`` where nothing would give a method its score."""
    if config.evaluation is None:
        raise ConfigError(
            f"method {method} has no section evaluation, which gives it its score: set it in common, as in the YAML of "
            "`ost-hf run`"
        )


def prepare_command(study: StudyConfig, group: Group) -> list[str] | None:
    """The words that make a group's data, if its setting has any.

    Raises:
        ConfigError: If they are not a list.
    """
    setting = study.settings[group.setting]
    command, options = setting.get("prepare", study.common.get("prepare")), setting.get("prepare_options", [])
    if command is None:
        return None
    for name, words in (("prepare", command), ("prepare_options", options)):
        if not isinstance(words, list):
            raise ConfigError(f"{name} of setting {group.setting} must be a list of words, got {words!r}")
    return [str(filled(word, group)) for word in [*command, *options]]


def filled(value: Any, group: Group) -> Any:
    """``value`` with the group's names in place of ``{seed}``, ``{setting}`` and ``{data}``."""
    if isinstance(value, dict):
        return {key: filled(inner, group) for key, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner, group) for inner in value]
    if isinstance(value, str):
        for name, text in (("seed", group.seed), ("setting", group.setting), ("data", group.data)):
            value = value.replace("{" + name + "}", str(text))
    return value
