"""``RunConfig``: one YAML with a section for each stage, and a flag for each field.

Standard library and configuration classes only: ``--help`` reads this module and must be quick.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ost_hf.runs.yaml_values import dump_yaml, parse_yaml
from ost_hf.data.config import AnchorConfig, DatasetConfig, EncodingConfig
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.errors import ConfigError, require_choice, require_integer, require_known, unknown_key
from ost_hf.evaluation.config import EvaluationConfig
from ost_hf.files import write_whole
from ost_hf.hub.config import HubConfig
from ost_hf.models import TargetConfig
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.strategy import DEFAULT_STRATEGY, STRATEGIES, apply_strategy
from ost_hf.selection.config import STRATEGIES as ORDERS
from ost_hf.selection.config import SelectionConfig


@dataclass(frozen=True)
class AccelerateConfig:
    """With a file, a command starts itself under ``accelerate launch``; `run` does so stage by stage."""

    config_file: str | None = field(default=None, metadata={"help": "accelerate config for all stages"})
    score: str | None = field(default=None, metadata={"help": "another one for scoring"})
    train: str | None = field(default=None, metadata={"help": "another one for training"})
    evaluate: str | None = field(default=None, metadata={"help": "another one for evaluation"})
    num_processes: int | None = field(
        default=None, metadata={"help": "processes over all machines, in place of the file's"}
    )

    def __post_init__(self) -> None:
        require_integer("accelerate.num_processes", self.num_processes, at_least=1, optional=True)

    def file_for(self, stage: str) -> str | None:
        """The accelerate config of a stage."""
        return getattr(self, stage, None) or self.config_file


# The sections of a YAML in the order of the data's way. `training` is apart: its fields are OSTConfig's.
SECTIONS: dict[str, Any] = {
    "pool": DatasetConfig,
    "anchors": AnchorConfig,
    "duplicates": DuplicatesConfig,
    "encoding": EncodingConfig,
    "proxy": ProxyConfig,
    "scoring": ScoringConfig,
    "selection": SelectionConfig,
    "target": TargetConfig,
    "evaluation": EvaluationConfig,
    "hub": HubConfig,
    "accelerate": AccelerateConfig,
}


@dataclass(frozen=True)
class RunConfig:
    """The resolved configuration of a run directory; sections that were not given are ``None`` or defaults."""

    run_dir: str
    strategy: str = DEFAULT_STRATEGY
    pool: DatasetConfig | None = None
    anchors: AnchorConfig | None = None
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    encoding: EncodingConfig = field(default_factory=EncodingConfig)
    proxy: ProxyConfig | None = None
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    target: TargetConfig | None = None
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: EvaluationConfig | None = None
    hub: HubConfig | None = None
    accelerate: AccelerateConfig = field(default_factory=AccelerateConfig)

    @property
    def folder(self) -> Path:
        """The run directory."""
        return Path(self.run_dir).expanduser()

    @property
    def scoring_near_the_cut(self) -> ScoringConfig:
        """``scoring`` with the cut that cascade's exact steps go to, where it names none."""
        return self.scoring.near_the_cut(self.selection.keep_ratio)

    def require(self, *sections: str) -> None:
        """Raises ``ConfigError`` unless all ``sections`` were given."""
        missing = [name for name in sections if getattr(self, name) is None]
        if missing:
            needed = " and ".join(f"{name} ({_first_field(name)})" for name in missing)
            raise ConfigError(
                f"this command needs the section{'s' * (len(missing) > 1)} {needed}, in the YAML or as flags"
            )

    def write(self) -> Path:
        """Writes ``config.yaml`` into the run directory; running with it replays the run."""
        resolved = {key: value for key, value in asdict(self).items() if value is not None}
        # It is meant once: the next training would start from the end of this one, and do nothing.
        resolved["training"].pop("resume_from_checkpoint", None)
        path = self.folder / "config.yaml"
        write_whole(path, lambda temporary: temporary.write_text(dump_yaml(resolved)))
        return path


def load_config(path: str | None, overrides: dict[str, str], run_dir: str | None = None) -> RunConfig:
    """Reads a YAML and lays flags over it.

    Args:
        path: The YAML; without one, ``run_dir/config.yaml`` if it exists.
        overrides: Flag texts by ``section.field``, or ``strategy``.
        run_dir: In place of the YAML's.

    Raises:
        ConfigError: For an unreadable file, an unknown section or field, a value of another type, or a
            value that is not allowed.
    """
    if path is None and run_dir is not None and (Path(run_dir).expanduser() / "config.yaml").exists():
        path = str(Path(run_dir).expanduser() / "config.yaml")
    given = _read(path) if path is not None else {}
    if "strategy" in overrides and path is not None and _is_written(path, given):
        given = _without_strategy(given, overrides["strategy"])
    for name, text in overrides.items():
        section, _, key = name.partition(".")
        if not key:
            given[section] = text
            continue
        values = given.setdefault(section, {})
        if values is None:
            values = given[section] = {}
        values[key] = parse_yaml(text, f"--{name}")
    if run_dir is not None:
        given["run_dir"] = run_dir
    return build_config(given)


def build_config(given: dict[str, Any]) -> RunConfig:
    """Checks a mapping of sections and makes the configuration of it.

    Raises:
        ConfigError: As :func:`load_config`.
    """
    built: dict[str, Any] = {}
    for name, values in _with_strategy(given).items():
        if name in ("run_dir", "strategy"):
            built[name] = str(values)
        elif name == "training":
            built[name] = _check_training(values or {})
        elif name not in SECTIONS:
            raise ConfigError(unknown_key("section", name, ["run_dir", "strategy", "training", *SECTIONS]))
        elif values is not None:
            built[name] = _build_section(name, values)
    if not built.get("run_dir"):
        raise ConfigError("run_dir is not set: name the folder for this run's tables, in the YAML or as --run_dir")
    return RunConfig(**built)


# What a strategy has defaults for.
_OF_STRATEGIES = ("duplicates", "scoring", "selection")


def _with_strategy(given: dict[str, Any]) -> dict[str, Any]:
    """The sections with the strategy's fields where nothing else was given."""
    name = str(given.get("strategy", DEFAULT_STRATEGY))
    try:
        require_choice("strategy", name, STRATEGIES)
    except ConfigError as error:
        raise ConfigError(f"{error} (selection.strategy has {name})" if name in ORDERS else str(error)) from None
    sections = {name: given.get(name) or {} for name in _OF_STRATEGIES}
    if not all(isinstance(section, dict) for section in sections.values()):
        return given  # refused where sections are built
    return {**given, **apply_strategy(name, sections)}


def held_values(config: RunConfig, overrides: Mapping[str, str]) -> list[str]:
    """``strategy`` and fields of ``selection`` that neither a flag nor a default has given, one phrase each."""
    usual = apply_strategy(config.strategy, {"scoring": asdict(config.scoring)})["selection"]
    values, default = asdict(config.selection), asdict(SelectionConfig(**usual))
    held = {"strategy": config.strategy} if config.strategy != DEFAULT_STRATEGY else {}
    held |= {f"selection.{name}": value for name, value in values.items() if value != default[name]}
    return [f"{name} {value}" for name, value in held.items() if name not in overrides]


def _is_written(path: str, given: dict[str, Any]) -> bool:
    """Whether a file is the ``config.yaml`` of its own run directory: all fields of a file by hand were meant."""
    own = Path(str(given.get("run_dir") or ".")).expanduser() / "config.yaml"
    return own.resolve() == Path(path).expanduser().resolve()


def _without_strategy(given: dict[str, Any], wanted: str) -> dict[str, Any]:
    """The sections of a run directory's file without what its own strategy has written, if another one is wanted.

    A run directory's ``config.yaml`` holds every field; as given ones they would outweigh the new strategy's.
    """
    old = str(given.get("strategy", DEFAULT_STRATEGY))
    if old == wanted or old not in STRATEGIES:
        return given
    result = dict(given)
    for section in _OF_STRATEGIES:
        values = given.get(section) or {}
        written = {item.name: item.default for item in section_fields(section)}
        written |= STRATEGIES[old].get(section, {})
        if isinstance(values, dict):
            # A field with no value here was not given: its default is None.
            result[section] = {key: value for key, value in values.items() if value != written.get(key, value)}
            result[section] |= {key: value for key, value in values.items() if key not in written}
    return result


def section_fields(section: str) -> list[Field[Any]]:
    """The fields of a section, for flags and for help."""
    return list(fields(SECTIONS[section]))


def _read(path: str) -> dict[str, Any]:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"there is no configuration file {path}")
    given = parse_yaml(file.read_text(), path)
    if not isinstance(given, dict):
        raise ConfigError(f"{path} must hold sections such as pool, proxy and target")
    return given


def _build_section(section: str, values: Any) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"section {section} must hold fields and values, got {values!r}")
    cls = SECTIONS[section]
    hints = typing.get_type_hints(cls)
    allowed = {item.name: item for item in fields(cls)}
    require_known(f"field of section {section}", values, allowed)
    for key, item in allowed.items():
        if item.default is MISSING and item.default_factory is MISSING and key not in values:
            raise ConfigError(f"{section}.{key} is not set: {item.metadata['help']}")
    return cls(**{key: _typed(f"{section}.{key}", value, hints[key]) for key, value in values.items()})


def _typed(name: str, value: Any, hint: Any) -> Any:
    """``value`` if it has the field's type; an integer serves as a float, a number as text."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in allowed:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if bool in allowed and isinstance(value, bool):
        return value
    if int in allowed and is_number and float(value).is_integer():
        return int(value)
    if float in allowed and is_number:
        return float(value)
    if str in allowed and (isinstance(value, str) or is_number):
        return str(value)
    wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
    raise ConfigError(f"{name} must be {wanted}, got {value!r}")


def _check_training(values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigError(f"section training must hold fields of TrainingArguments and values, got {values!r}")
    elsewhere = {
        "output_dir": "the target is written to run_dir/target",
        **dict.fromkeys(("keep_ratio", "keep_count", "min_utility"), "the select stage decides: set it in selection"),
    }
    for key, reason in elsewhere.items():
        if key in values:
            raise ConfigError(f"training.{key} cannot be set here: {reason}")
    return values


def _first_field(section: str) -> str:
    return f"{section}.{section_fields(section)[0].name}"
