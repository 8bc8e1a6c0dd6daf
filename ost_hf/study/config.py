"""``StudyConfig``: the YAML of a study.

A setting, a method and ``common`` are mappings of a run's sections (``pool``, ``proxy``, ``scoring``, ...), laid over
one another, the method last. ``{seed}``, ``{setting}`` and ``{data}`` in texts are filled in. ``include`` names a file
of fields that several studies share.
Without PyTorch and the like: ``--help`` reads this.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ost_hf.errors import ConfigError, require_choice, require_integer, require_known, require_range, unknown_key
from ost_hf.runs.config import SECTIONS
from ost_hf.runs.yaml_values import parse_yaml
from ost_hf.settings import laid_over

Section = dict[str, Any]

PROTOCOLS = ("A", "B")


@dataclass(frozen=True)
class StudyConfig:
    """What is compared, where, and how often."""

    run_dir: str = field(metadata={"help": "folder of all arms; what is done there already is not done again"})
    seeds: list[int] = field(metadata={"help": "of data, proxy, selection and training: one repetition each"})
    methods: dict[str, Section] = field(
        metadata={"help": "sections by name; one that sets how much it keeps by itself is not crossed with keep_ratios"}
    )
    settings: dict[str, Section] = field(
        metadata={
            "help": "sections by name, and `prepare`: a command (list of words) that makes the data in {data}, or "
            "`prepare_options`: more words for the command of `common`"
        }
    )
    common: Section = field(default_factory=dict, metadata={"help": "sections of all arms"})
    keep_ratios: list[float] = field(default_factory=lambda: [0.5], metadata={"help": "shares of the pool to keep"})
    protocols: list[str] = field(
        default_factory=lambda: ["B"],
        metadata={
            "help": "`B`: training.max_steps for every selection (fewer rows, more epochs); `A`: steps in proportion "
            "to the kept share (same epochs)"
        },
    )
    reference: str = field(default="auto", metadata={"help": "the method that all others are compared with"})
    bounds: list[str] = field(
        default_factory=lambda: ["everything", "oracle"],
        metadata={"help": "the method that trains on the whole pool, and the one that knows the truth, if any"},
    )
    truth: Section | None = field(
        default=None,
        metadata={"help": "{column, clean}: a column of the pool and its value for clean rows; says what was kept"},
    )
    count_by: list[str] = field(
        default_factory=list, metadata={"help": "columns of the pool of whose values the kept share is told"}
    )
    copies: str | None = field(
        default=None,
        metadata={
            "help": "column of the pool: rows of one value are copies of one another, without one of no other; says "
            "what share of the rows beyond the first of each value is kept"
        },
    )
    datamodelling: Section | None = field(
        default=None,
        metadata={
            "help": "{subsets, share, max_steps}: fine-tune on so many random subsets of that share of the pool, and "
            "say how well each method's summed utilities predict the anchors' loss (linear datamodelling score)"
        },
    )
    workers: int = field(
        default=1, metadata={"help": "processes side by side, each with a setting and seed of its own"}
    )
    keep_targets: bool = field(default=False, metadata={"help": "leave the fine-tuned models on disk"})

    def __post_init__(self) -> None:
        require_integer("workers", self.workers, at_least=1)
        for name in ("seeds", "keep_ratios", "protocols", "count_by", "bounds"):
            if not isinstance(getattr(self, name), list):
                raise ConfigError(f"{name} must be a list, got {getattr(self, name)!r}")
        for name in ("seeds", "methods", "settings", "keep_ratios", "protocols"):
            if not getattr(self, name):
                raise ConfigError(f"{name} is empty: name at least one")
        for protocol in self.protocols:
            require_choice("protocols", protocol, PROTOCOLS)
        for ratio in self.keep_ratios:
            require_range("keep_ratios", ratio, above=0, at_most=1)
        if len(self.bounds) != 2:
            raise ConfigError(f"bounds must name two methods, got {self.bounds!r}")
        if self.reference not in self.methods:
            raise ConfigError(unknown_key("method (reference)", self.reference, self.methods))
        for name in (*self.methods, *self.settings):
            if not name or set(name) & set("/\\ "):
                raise ConfigError(f"names become folders: {name!r} may not hold spaces or slashes")
        for place, sections, wrong in (
            ("common", self.common, ("prepare_options", "untrained")),
            *((f"settings.{name}", given, ("untrained",)) for name, given in self.settings.items()),
            *((f"methods.{name}", given, ("prepare", "prepare_options")) for name, given in self.methods.items()),
        ):
            for key in wrong:
                if key in sections:
                    raise ConfigError(f"{place}.{key} would do nothing there: see docs/studies.md for where it belongs")
        if self.truth is not None and (not isinstance(self.truth, dict) or set(self.truth) != {"column", "clean"}):
            raise ConfigError(f"truth must hold column and clean, got {self.truth!r}")
        if self.datamodelling is not None:
            _check_datamodelling(self.datamodelling)

    @property
    def folder(self) -> Path:
        """The study's folder."""
        return Path(self.run_dir).expanduser()


def load_study(path: str | Path, changes: Section | None = None) -> StudyConfig:
    """Reads a study's YAML.

    Args:
        path: The file.
        changes: Fields in place of the file's.

    Raises:
        ConfigError: For a file that is not there, an unknown field, or a value that is not allowed.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"there is no study {path}")
    given = parse_yaml(file.read_text(), str(path))
    if not isinstance(given, dict):
        raise ConfigError(f"{path} must hold fields such as run_dir, seeds, settings and methods")
    if "include" in given:
        given = _over_included(given, file)
    given |= changes or {}
    allowed = {item.name: item for item in fields(StudyConfig)}
    require_known("field of a study", given, allowed)
    for name in ("run_dir", "seeds", "methods", "settings"):
        if name not in given:
            raise ConfigError(f"{name} is not set: {allowed[name].metadata['help']}")
    for name in ("methods", "settings"):
        if not isinstance(given[name], dict):
            raise ConfigError(f"{name} must hold names and their sections, got {given[name]!r}")
        given[name] = {str(key): value or {} for key, value in given[name].items()}
    given["common"] = _common_of(given)
    return StudyConfig(**given)


def overlaid(below: Section, above: Section) -> Section:
    """Sections of ``above`` laid over those of ``below``, field by field; what is no section is replaced."""
    result = dict(below)
    for key, value in above.items():
        both = key in SECTIONS or key == "training"
        for section in (value, result.get(key)) if both else ():
            if section is not None and not isinstance(section, dict):
                raise ConfigError(f"section {key} must hold fields, got {section!r}")
        result[key] = laid_over(result.get(key) or {}, value or {}) if both else value
    return result


def _check_datamodelling(given: Any) -> None:
    """Raises ``ConfigError`` now for what would fail only after every method has been trained."""
    if not isinstance(given, dict) or set(given) != {"subsets", "share", "max_steps"} or given["share"] is None:
        raise ConfigError(f"datamodelling must hold subsets, share and max_steps, got {given!r}")
    # Of two subsets the ranks agree or they do not: that is no correlation.
    require_integer("datamodelling.subsets", given["subsets"], at_least=3)
    require_range("datamodelling.share", given["share"], above=0, at_most=1)
    require_integer("datamodelling.max_steps", given["max_steps"], at_least=1)


def _common_of(given: Section) -> Section:
    common = given.get("common") or {}
    if not isinstance(common, dict):
        raise ConfigError(f"common must hold sections, got {common!r}")
    return common


def _over_included(given: Section, study: Path) -> Section:
    """A study's fields over those of the file that it includes, and what it names there without sections of its own."""
    file = study.parent / str(given["include"])
    if not file.is_file():
        raise ConfigError(f"include: there is no {file} (a path is read from the folder of {study})")
    below = parse_yaml(file.read_text(), str(file))
    if not isinstance(below, dict) or "include" in below:
        raise ConfigError(f"include: {file} must hold fields of a study, and include no other")
    result = {**below, **{key: value for key, value in given.items() if key != "include"}}
    result["common"] = overlaid(_common_of(below), _common_of(given))
    for name in ("methods", "settings"):
        named, known = result.get(name), below.get(name) or {}
        if isinstance(named, dict):
            result[name] = {key: _own_or_known(name, key, sections, known) for key, sections in named.items()}
    return result


def _own_or_known(kind: str, name: Any, sections: Any, known: Section) -> Any:
    if sections is not None:
        return sections
    if name not in known:
        wrong = unknown_key(f"name in the included {kind}", str(name), known)
        raise ConfigError(f"{wrong}. Give it sections of its own, or {{}} for what every arm has")
    return known[name]
