"""``RunConfig``: one YAML with a section for each stage, and a flag for each field.

Standard library and configuration classes only: ``--help`` reads this module and must be quick.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ost_hf.data.config import AnchorConfig, DatasetConfig, EncodingConfig
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.errors import ConfigError, require_integer, unknown_key
from ost_hf.evaluation.config import EvaluationConfig
from ost_hf.files import write_text
from ost_hf.hub.config import HubConfig
from ost_hf.models import TargetConfig
from ost_hf.proxy.config import ProxyConfig
from ost_hf.runs.yaml_values import dump_yaml, parse_yaml
from ost_hf.scoring.config import ScoringConfig
from ost_hf.selection.config import SelectionConfig
from ost_hf.settings import Section, as_mapping, build
from ost_hf.strategy import Choice, resolve

CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class AccelerateConfig:
    """With a file, a command starts itself under ``accelerate launch``; `run` does so stage by stage."""

    config_file: str | None = field(default=None, metadata={"common": True, "help": "accelerate config for all stages"})
    score: str | None = field(default=None, metadata={"help": "another one for scoring"})
    train: str | None = field(default=None, metadata={"help": "another one for training"})
    evaluate: str | None = field(default=None, metadata={"help": "another one for evaluation"})
    num_processes: int | None = field(
        default=None, metadata={"common": True, "help": "processes over all machines, in place of the file's"}
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
# What stands beside them in a YAML.
_BESIDE = ("run_dir", "reuse", "strategy", "training")
# What a strategy has defaults for.
_CHOOSING = ("duplicates", "scoring", "selection")


@dataclass(frozen=True)
class RunConfig:
    """The configuration of a run directory: what was given, and what it comes to.

    Attributes:
        run_dir: The run directory.
        given: The sections as they were given, which ``config.yaml`` keeps: running with that file replays the run.
        choice: How rows are chosen: ``duplicates``, ``scoring`` and ``selection``, over the strategy's defaults.
        training: Fields of ``OSTConfig``.
        reuse: The directory of an earlier run, whose stored values are asked in place of the pool.
    """

    run_dir: str
    given: Section
    choice: Choice = field(default_factory=resolve)
    pool: DatasetConfig | None = None
    anchors: AnchorConfig | None = None
    encoding: EncodingConfig = field(default_factory=EncodingConfig)
    proxy: ProxyConfig | None = None
    target: TargetConfig | None = None
    training: Section = field(default_factory=dict)
    evaluation: EvaluationConfig | None = None
    hub: HubConfig | None = None
    accelerate: AccelerateConfig = field(default_factory=AccelerateConfig)
    reuse: str | None = None

    @property
    def folder(self) -> Path:
        """The run directory."""
        return Path(self.run_dir).expanduser()

    @property
    def strategy(self) -> str:
        """The name of the strategy."""
        return self.choice.strategy

    @property
    def duplicates(self) -> DuplicatesConfig:
        """What is done about copies."""
        return self.choice.duplicates

    @property
    def scoring(self) -> ScoringConfig:
        """How the pool is scored."""
        return self.choice.scoring

    @property
    def selection(self) -> SelectionConfig:
        """How much is kept, and in which order."""
        return self.choice.selection

    def resolved(self) -> Section:
        """Every setting with its value, defaults too."""
        sections = {name: getattr(self, name) for name in SECTIONS}
        settings = {name: as_mapping(section) for name, section in sections.items() if section is not None}
        return {"run_dir": self.run_dir, "strategy": self.strategy, **settings, "training": dict(self.training)}

    def require(self, *sections: str) -> None:
        """Raises ``ConfigError`` unless all ``sections`` were given."""
        missing = [name for name in sections if getattr(self, name) is None]
        if missing:
            needed = " and ".join(f"{name} ({name}.{fields(SECTIONS[name])[0].name})" for name in missing)
            raise ConfigError(
                f"this command needs the section{'s' * (len(missing) > 1)} {needed}, in the YAML or as flags"
            )

    def with_training(self, **changes: Any) -> RunConfig:
        """The same with other fields of ``training``."""
        training = {**self.training, **changes}
        return replace(self, training=training, given={**self.given, "training": training})

    def write(self) -> Path:
        """Writes what was given as ``config.yaml`` of the run directory."""
        path = self.folder / CONFIG_FILE
        # It is meant once: the next training would start from the end of this one, and do nothing.
        write_text(path, self.as_yaml(without=("resume_from_checkpoint",)))
        return path

    def as_yaml(self, without: tuple[str, ...] = ()) -> str:
        """What was given, but for some fields of ``training``, as :func:`load_config` reads it."""
        given = {name: values for name, values in self.given.items() if values != {}}
        if "training" in given:
            given["training"] = {key: value for key, value in given["training"].items() if key not in without}
        return dump_yaml({"run_dir": self.run_dir, **given})


def load_config(
    path: str | None, overrides: Mapping[str, str], run_dir: str | None = None, imports: Sequence[str] = ()
) -> RunConfig:
    """Reads a YAML and lays flags over it.

    Args:
        path: The YAML; without one, ``run_dir/config.yaml`` if it exists, else that of the run that is reused.
        overrides: Flag texts by dotted name: ``scoring.judge.model``, ``strategy`` or ``reuse``.
        run_dir: In place of the YAML's.
        imports: Files to import beside those that ``scoring.imports`` names.

    Raises:
        ConfigError: For an unreadable file, an unknown section or field, a value of another type, or a
            value that is not allowed.
    """
    # A run that reuses another one is like that, but for what is said now.
    for folder in (run_dir, overrides.get("reuse")):
        if path is None and folder is not None and (Path(folder).expanduser() / CONFIG_FILE).exists():
            path = str(Path(folder).expanduser() / CONFIG_FILE)
    given = read_yaml(path) if path is not None else {}
    for name, text in overrides.items():
        *sections, key = name.split(".")
        values = given
        for section in sections:
            inner = values.get(section)
            if inner is not None and not isinstance(inner, dict):
                raise ConfigError(f"section {section} must hold fields and values, got {inner!r}")
            values[section] = values = dict(inner or {})
        values[key] = parse_yaml(text, f"--{name}") if sections else text
    if imports:
        scoring = given["scoring"] = dict(given.get("scoring") or {})
        before = scoring.get("imports") or []
        scoring["imports"] = list(dict.fromkeys([*([before] if isinstance(before, str) else before), *imports]))
    if run_dir is not None:
        given["run_dir"] = run_dir
    return build_config(given)


def build_config(given: Mapping[str, Any]) -> RunConfig:
    """Checks a mapping of sections and makes the configuration of it.

    Raises:
        ConfigError: As :func:`load_config`.
    """
    for name in given:
        if name not in (*_BESIDE, *SECTIONS):
            raise ConfigError(unknown_key("section", str(name), [*_BESIDE, *SECTIONS]))
    if not given.get("run_dir"):
        raise ConfigError("run_dir is not set: name the folder for this run's tables, in the YAML or as --run_dir")
    built = {
        name: build(SECTIONS[name], values, name)
        for name, values in given.items()
        if name in SECTIONS and name not in _CHOOSING and values is not None
    }
    strategy = given.get("strategy")
    choice = resolve(None if strategy is None else str(strategy), **{name: given.get(name) for name in _CHOOSING})
    training = _check_training(given.get("training") or {})
    # Of a section that was given as an instance, plain values.
    plain = {**given, **choice.given}
    kept = {name: value for name, value in plain.items() if name != "run_dir" and value is not None}
    reuse = None if given.get("reuse") is None else str(given["reuse"])
    return RunConfig(str(given["run_dir"]), kept, choice, training=training, reuse=reuse, **built)


def read_yaml(path: str) -> Section:
    """The sections of a YAML.

    Raises:
        ConfigError: If there is no such file, or it is no YAML of sections.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"there is no configuration file {path}")
    given = parse_yaml(file.read_text(), path)
    if not isinstance(given, dict):
        raise ConfigError(f"{path} must hold sections such as pool, proxy and target")
    return given


def held_values(config: RunConfig, overrides: Mapping[str, str]) -> list[str]:
    """What an earlier command's flags still decide of the strategy and the selection, one phrase each."""
    held = {"strategy": config.strategy} if "strategy" in config.given else {}
    held |= {f"selection.{name}": value for name, value in (config.given.get("selection") or {}).items()}
    return [f"{name} {value}" for name, value in held.items() if value is not None and name not in overrides]


def _check_training(values: Any) -> Section:
    if not isinstance(values, dict):
        raise ConfigError(f"section training must hold fields of TrainingArguments and values, got {values!r}")
    elsewhere = {
        "output_dir": "the target is written to run_dir/target",
        **dict.fromkeys(
            ("keep_ratio", "keep_count", "min_utility", "drop_toxic", "weighted_loss"),
            "the select stage decides: set it in selection",
        ),
        **dict.fromkeys(
            ("strategy", "proxy", "anchors", "scores", "selection", "scoring", "encoding", "duplicates"),
            "rows are chosen by the stages before: set it in the section of its own",
        ),
    }
    for key, reason in elsewhere.items():
        if key in values:
            raise ConfigError(f"training.{key} cannot be set here: {reason}")
    return values
