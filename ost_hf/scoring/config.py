"""How a pool is scored: the scorer, the second stage, and the loop around them.

Standard library only: ``--help`` reads this. What belongs to one scorer or one second stage is in a section of its own,
``scoring.NAME``, whose dataclass that scorer or stage brings along.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from ost_hf.errors import ConfigError, require_integer, unknown_key
from ost_hf.registry import import_file
from ost_hf.scorers.registry import SCORERS, NoOptions
from ost_hf.scoring.second_stages import SECOND_STAGES
from ost_hf.settings import Section, as_mapping, build, changed, coerced, remembers_given

DEFAULT_SCORER = "one_step"

# What of a score table a scorer may or may not give; the rest of the section is about speed and order.
SHARED = ("per_anchor", "group_by", "sketch_size", "embedding_size", "per_turn")
# What `store` keeps of a row, where no sizes are given.
_STORED_SIZES = {"sketch_size": 512, "embedding_size": 256}
# These change speed and memory, not what is computed: a run may be resumed with others.
_OF_THE_LOOP = ("batch_size", "batch_tokens", "part_size", "num_workers")


@remembers_given
@dataclass(frozen=True)
class ScoringConfig:
    """The scorer and the loop around it.

    Attributes:
        sections: Options of scorers and second stages by name, each an instance of the dataclass that is registered
            for it or a mapping of its fields. Those of others than ``scorer`` and ``second_stage`` do nothing.
    """

    scorer: str = field(
        default=DEFAULT_SCORER,
        metadata={
            "common": True,
            "short": "one_step, random, perplexity, rds, judge, ...",
            "help": "`one_step`; without anchors: `random`, `length` (longest answer first), `perplexity` (lowest loss "
            "first), `ifd`, `judge` (a language model rates), `deita`, `column` (your own scores); with anchors: "
            "`rds`, `less`; see docs/baselines.md",
        },
    )
    second_stage: str | None = field(
        default=None,
        metadata={
            "common": True,
            "short": "second_look (strategy auto has it), cascade or null",
            "help": "what looks at the rows again after the scorer: `second_look` (proxies that have learnt from what "
            "looked clean; what strategy auto does), `cascade` (exact steps near the cut-off), or null for nothing",
        },
    )
    sections: Mapping[str, Any] = field(default_factory=dict, metadata={"help": "options by name"})
    imports: tuple[str, ...] = field(
        default=(),
        metadata={"help": "Python files or modules to import first, for the scorers and second stages they register"},
    )
    per_anchor: bool = field(
        default=False,
        metadata={
            "help": "keep a gradient per anchor (memory: anchors x adapter): utilities get a standard error, and each "
            "row its utility for each anchor (list column `anchor_utilities`)"
        },
    )
    group_by: str | None = field(
        default=None,
        metadata={"help": "anchor column whose values are groups: each gets a utility column `group:VALUE` of its own"},
    )
    sketch_size: int = field(
        default=0,
        metadata={
            "help": "store a sketch of each preconditioned gradient, taken to length one, in so many numbers (column "
            "`sketch`; 0: none, or with scoring.store 512)"
        },
    )
    embedding_size: int = field(
        default=0,
        metadata={
            "help": "store a vector of each row, its mean last hidden state, in at most so many numbers (column "
            "`embedding`; 0: none, or with scoring.store 256): with the anchors' vectors they tell which rows are of "
            "the anchors' kind"
        },
    )
    store: bool = field(
        default=False,
        metadata={
            "help": "store what it takes to ask again without another pass over the pool (`ost-hf score --reuse`): a "
            "sketch and a vector of each row in half precision, 2 (sketch_size + embedding_size) bytes, and the "
            "proxies of the second look"
        },
    )
    per_turn: bool = field(
        default=False,
        metadata={
            "help": "say the same of each turn of a row by itself (list columns `turn_losses`, `turn_utilities`, and "
            "after a second look `turn_late_losses`, `turn_corrupted_p`); a row of K turns, if K is above 1, costs K "
            "more estimates of the scorer"
        },
    )
    batch_tokens: int | None = field(
        default=None,
        metadata={
            "common": True,
            "short": "tokens at a time in each process; by default by the device",
            "help": "tokens scored at a time in each process, padding included; by default 1024 on a CPU and 16384 on "
            "an accelerator; halved until a batch of the longest rows fits into memory",
        },
    )
    batch_size: int | None = field(
        default=None, metadata={"help": "rows scored at a time at most; by default as many as batch_tokens allows"}
    )
    part_size: int = field(
        default=512,
        metadata={"help": "rows per file of the score table; a killed run loses at most so many in each process"},
    )
    num_workers: int | None = field(
        default=None,
        metadata={
            "help": "processes that read and encode rows ahead of the scorer; by default none on a CPU, and on an "
            "accelerator as many as keep it busy (4, or fewer on a small machine)"
        },
    )
    seed: int = field(default=0, metadata={"help": "seed of the random scorer, of sketches and of random samples"})

    def __post_init__(self) -> None:
        imports = (self.imports,) if isinstance(self.imports, str) else tuple(self.imports or ())
        object.__setattr__(self, "imports", imports)
        for name in self.imports:
            import_file(name)
        require_integer("scoring.sketch_size", self.sketch_size, at_least=0)
        require_integer("scoring.embedding_size", self.embedding_size, at_least=0)
        require_integer("scoring.batch_tokens", self.batch_tokens, at_least=1, optional=True)
        require_integer("scoring.batch_size", self.batch_size, at_least=1, optional=True)
        require_integer("scoring.part_size", self.part_size, at_least=1)
        require_integer("scoring.num_workers", self.num_workers, at_least=0, optional=True)
        SCORERS.find(self.scorer)
        if self.second_stage is not None:
            SECOND_STAGES.find(self.second_stage)
        if self.store:
            self._settle_store()
        object.__setattr__(self, "sections", {name: _options(name, given) for name, given in self.sections.items()})
        for options in (self.options, self.stage_options):
            # What goes together only in the whole section.
            if hasattr(options, "check"):
                options.check(self)

    def _settle_store(self) -> None:
        """What is stored is of one-step utilities, and has a size."""
        if self.scorer != DEFAULT_SCORER:
            raise ConfigError(
                "scoring.store keeps what one-step utilities are asked again by: it goes with scorer "
                f"{DEFAULT_SCORER!r}, not with {self.scorer!r}"
            )
        for name, size in _STORED_SIZES.items():
            object.__setattr__(self, name, getattr(self, name) or size)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str = "scoring") -> ScoringConfig:
        """Makes the section of a mapping whose keys are fields, and names of scorers and second stages.

        Raises:
            ConfigError: For an unknown key, a value of another type, or one that is not allowed.
        """
        own = {item.name for item in fields(cls)} - {"sections"}
        imports = values.get("imports") or ()
        for name in (imports,) if isinstance(imports, str) else imports:
            import_file(str(name))
        named = {key: value for key, value in values.items() if key not in own}
        for key, value in named.items():
            if key not in SCORERS and key not in SECOND_STAGES:
                raise ConfigError(_unknown(str(key), value, own, where))
        given = coerced(cls, {key: value for key, value in values.items() if key in own}, where)
        if named:
            given["sections"] = {key: value or {} for key, value in named.items()}
        return cls(**given)

    def to_mapping(self, only_given: bool = False) -> Section:
        """The section as :meth:`from_mapping` takes it; by default with every option of scorer and second stage."""
        given: frozenset[str] | None = getattr(self, "_given", None) if only_given else None
        plain = {
            item.name: list(value) if isinstance(value, tuple) else value
            for item in fields(self)
            if item.name != "sections" and (given is None or item.name in given)
            for value in (getattr(self, item.name),)
        }
        options = dict(self.sections)
        if not only_given:
            options = {
                self.scorer: self.options,
                **({self.second_stage: self.stage_options} if self.second_stage else {}),
            }
        return plain | {
            name: values for name, each in options.items() if (values := as_mapping(each, only_given)) or only_given
        }

    @property
    def options(self) -> Any:
        """The options of the scorer."""
        return self.section(self.scorer)

    @property
    def stage_options(self) -> Any:
        """The options of the second stage; ``None`` without one."""
        return self.section(self.second_stage) if self.second_stage is not None else None

    def section(self, name: str) -> Any:
        """The options of a scorer or second stage: those that were given, or its defaults."""
        return self.sections[name] if name in self.sections else _options(name, {})

    def with_options(self, **changes: Any) -> ScoringConfig:
        """The same with other options of the scorer."""
        return changed(self, sections={**self.sections, self.scorer: changed(self.options, **changes)})

    def with_stage_options(self, **changes: Any) -> ScoringConfig:
        """The same with other options of the second stage."""
        assert self.second_stage is not None
        return changed(self, sections={**self.sections, self.second_stage: changed(self.stage_options, **changes)})

    def without_extras(self) -> ScoringConfig:
        """The scorer's utility and nothing beside it: no second stage, standard errors, sketches, turns and so on."""
        none: Section = {"per_anchor": False, "group_by": None, "per_turn": False, "store": False}
        return replace(self, second_stage=None, sketch_size=0, embedding_size=0, **none)

    @property
    def columns(self) -> set[str] | None:
        """Columns that the score table will have beside the usual ones; ``None`` where the scorer does not say.

        ``group:`` stands for one or more columns that begin so.
        """
        declared = SCORERS.find(self.scorer).columns
        if declared is None:
            return None
        asked = [names for setting, names in declared.items() if setting == "always" or getattr(self, setting)]
        found = {name for names in asked for name in ((names,) if isinstance(names, str) else names)}
        if self.second_stage is None:
            return found
        stage = SECOND_STAGES.find(self.second_stage)
        return found | stage.columns | (stage.turn_columns if self.per_turn else set())

    @property
    def idle(self) -> list[str]:
        """Settings without effect: sections of others, and what the scorer says that it does not read."""
        declared = SCORERS.find(self.scorer).columns
        if declared is None:
            return []
        defaults = {item.name: item.default for item in fields(self)}
        unread = [name for name in SHARED if name not in declared and getattr(self, name) != defaults[name]]
        others = [name for name in self.sections if name not in (self.scorer, self.second_stage)]
        return [f"scoring.{name}" for name in [*unread, *others]]

    def identity(self) -> Section:
        """What decides the numbers: all settings but the loop's, options as they want to be told."""
        said = {name: value for name, value in self.to_mapping().items() if name not in (*_OF_THE_LOOP, "imports")}
        for name, options in ((self.scorer, self.options), (self.second_stage, self.stage_options)):
            if name is not None and hasattr(options, "identity"):
                said[name] = options.identity()
        return said

    def workers(self, device_type: str) -> int:
        """How many processes encode rows ahead in each scoring process."""
        if self.num_workers is not None:
            return self.num_workers
        return 0 if device_type == "cpu" else min(4, (os.cpu_count() or 1) // 2)


def _unknown(key: str, value: Any, own: set[str], where: str) -> str:
    """The message for a key that is no field: the sections that have one of that name, or what there is."""
    names = [*SCORERS.names(), *SECOND_STAGES.names()]
    if isinstance(value, Mapping):
        return (
            f"{unknown_key(f'field of section {where}', key, [*own, *names])}; one of your own needs its file in "
            f"{where}.imports"
        )
    registered = {name: (SCORERS if name in SCORERS else SECOND_STAGES).find(name).options for name in names}
    homes = [name for name, options in registered.items() if key in [item.name for item in fields(options)]]
    if homes:
        return f"unknown field of section {where} {key!r}: set {' or '.join(f'{where}.{name}.{key}' for name in homes)}"
    return unknown_key(f"field of section {where}", key, [*own, *names])


def _options(name: str, given: Any) -> Any:
    """An instance of the options that are registered for a scorer or a second stage."""
    if name not in SCORERS and name not in SECOND_STAGES:
        raise ConfigError(unknown_key("scorer or second stage", name, [*SCORERS.names(), *SECOND_STAGES.names()]))
    cls = (SCORERS if name in SCORERS else SECOND_STAGES).find(name).options
    if is_dataclass(given) and not isinstance(given, type):
        if not isinstance(given, cls):
            raise ConfigError(f"scoring.{name} must be a {cls.__name__}, got a {type(given).__name__}")
        return given
    if cls is NoOptions and given:
        raise ConfigError(f"{name} has no options of its own: remove section scoring.{name}")
    return build(cls, given, f"scoring.{name}")
