"""Flags of the commands: every field of a section is one, under its dotted name.

The parser of a command knows a few by name, those that its ``--help`` shows: fields with ``common`` in their metadata.
All others are taken by their section, and are checked where the section is built, so that scorers of one's own have
flags too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from ost_hf._version import __version__
from ost_hf.cli.commands import COMMANDS
from ost_hf.errors import ConfigError
from ost_hf.registry import import_file
from ost_hf.runs.config import SECTIONS
from ost_hf.scorers.registry import SCORERS
from ost_hf.scoring.config import DEFAULT_SCORER
from ost_hf.scoring.second_stages import SECOND_STAGES

# The first is of the one screen that `--help` prints.
_STRATEGY_HELP = (
    "auto (two looks), thorough, one_step or paper [default auto]",
    "defaults of scoring, selection and duplicates: auto (one-step utilities, a second look of few steps, copies "
    "dropped), thorough (the same with a longer second look), one_step (utility alone), paper (the paper's method to "
    "the letter) [default auto]",
)
_REUSE_HELP = (
    "score from what an earlier run has stored",
    "directory of a run that was scored with scoring.store: its stored values are asked, and only rows that it did not "
    "score are scored; values come from its config.yaml where no other one is there",
)
_IMPORT_HELP = (
    "Python file with a scorer or a second stage; repeatable",
    "Python file with a scorer, second stage or update rule of your own, which is imported first; may be repeated",
)
WIDTH = 110
_WIDTH_OF_FLAGS = 45


@dataclass
class Words:
    """A command line, read.

    Attributes:
        command: The command.
        config: The YAML.
        run_dir: In place of the YAML's.
        overrides: Texts by dotted name.
        imports: Files of the user's own to import, beside those that the YAML names.
    """

    command: str
    config: str | None = None
    run_dir: str | None = None
    overrides: dict[str, str] = field(default_factory=dict)
    imports: list[str] = field(default_factory=list)


def read_words(argv: Sequence[str]) -> Words:
    """Reads the words of a command line.

    Raises:
        ConfigError: For a flag that the command does not take, or one without a value; with ``--help-all``, for a
            file that cannot be imported.
        SystemExit: After help or the version was printed, or for a command that there is none of.
    """
    complete = "--help-all" in argv
    if complete:
        _import_named(argv)
    parser = build_parser(complete)
    if complete:
        argv = ["--help" if word == "--help-all" else word for word in argv]
    known, rest = parser.parse_known_args(list(argv))
    words = Words(known.command, known.config, known.run_dir, imports=getattr(known, "imports", None) or [])
    words.overrides = {
        name: value
        for name, value in vars(known).items()
        if ("." in name or name in ("strategy", "reuse")) and value is not None
    }
    words.overrides |= _dotted(known.command, rest)
    return words


def _import_named(argv: Sequence[str]) -> None:
    """Imports what ``--import`` names: its options have a place in the whole list."""
    for place, word in enumerate(argv):
        name, has_value, value = word.partition("=")
        if name == "--import":
            import_file(value if has_value else "".join(argv[place + 1 : place + 2]))


def build_parser(complete: bool = False) -> argparse.ArgumentParser:
    """The parser of all commands.

    Args:
        complete: Show every field, for which scorers and ``TrainingArguments`` are imported: that takes seconds.
    """
    parser = argparse.ArgumentParser(
        prog="ost-hf",
        description="One-Step-Train data selection: score a noisy pool with a small proxy, keep what helps, "
        "fine-tune the target on it.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("study", help="compare ways of selecting, from one YAML to tables and a plot", add_help=False)
    for name, command in COMMANDS.items():
        summary = f"{command.summary[0].upper()}{command.summary[1:]}."
        each = commands.add_parser(
            name,
            help=command.summary,
            description=f"{summary} Values come from the YAML, and flags override them.",
            usage=f"ost-hf {name} [--config FILE] [--run_dir RUN_DIR] [--SECTION.FIELD VALUE ...]",
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=_WIDTH_OF_FLAGS, width=WIDTH),
        )
        _add_fixed(each, name, complete)
        # One list on the screen that most people look at; all fields go by section.
        title = f"what most people set (all fields: ost-hf {name} --help-all)"
        common = None if complete else each.add_argument_group(title)
        for section in command.sections:
            _add_section(each, section, common)
        if command.training:
            _add_training(each, common)
    return parser


def _add_fixed(parser: argparse.ArgumentParser, name: str, complete: bool) -> None:
    parser.add_argument("--help-all", action="help", help="show every field")
    parser.add_argument("--config", metavar="FILE", help="YAML; by default RUN_DIR/config.yaml if it exists")
    parser.add_argument("--run_dir", "--run-dir", metavar="RUN_DIR", help="folder of this run's tables")
    if COMMANDS[name].strategy:
        parser.add_argument("--strategy", metavar="NAME", help=_STRATEGY_HELP[complete])
    if COMMANDS[name].reuse:
        parser.add_argument("--reuse", metavar="RUN_DIR", help=_REUSE_HELP[complete])
    if "scoring" in COMMANDS[name].sections:
        parser.add_argument("--import", dest="imports", action="append", metavar="FILE", help=_IMPORT_HELP[complete])


def _add_section(parser: argparse.ArgumentParser, section: str, common: Any) -> None:
    """The fields of a section: those that most people set into the group ``common``, or all into groups of their own.

    Args:
        parser: Of the command.
        section: The section.
        common: A group of the parser; ``None`` for all fields.
    """
    groups: dict[str, Any] = {}
    for name, item in section_fields(section, complete=common is None):
        if common is None:
            title = name.rpartition(".")[0]
            if title not in groups:
                groups[title] = parser.add_argument_group(title)
            text = f"{item.metadata.get('help', '')}{_default(item)}"
            groups[title].add_argument(f"--{name}", metavar="VALUE", help=text)
        elif item.metadata.get("common"):
            text = f"{item.metadata.get('short') or item.metadata.get('help', '')}{_default(item, required='')}"
            common.add_argument(f"--{name}", metavar="VALUE", help=text)


def section_fields(section: str, complete: bool = True) -> Iterator[tuple[str, Field[Any]]]:
    """The fields of a section by dotted name, those of scorers and second stages too.

    Args:
        section: The section.
        complete: All scorers and stages, for which they are imported; else the default ones alone.
    """
    for item in fields(SECTIONS[section]):
        if item.init and item.name != "sections":
            yield f"{section}.{item.name}", item
    if section == "scoring":
        for name in SCORERS.names() if complete else [DEFAULT_SCORER]:
            yield from ((f"scoring.{name}.{item.name}", item) for item in fields(SCORERS.find(name).options))
        for name in SECOND_STAGES.names() if complete else ["second_look"]:
            yield from ((f"scoring.{name}.{item.name}", item) for item in fields(SECOND_STAGES.find(name).options))


def _default(item: Field[Any], required: str = " [required]") -> str:
    if item.default is MISSING and item.default_factory is MISSING:
        return required
    value = item.default if item.default_factory is MISSING else item.default_factory()
    return "" if value is None or value in ((), {}) else f" [default {_as_typed(value)}]"


def _as_typed(value: Any) -> str:
    """A value as it is typed: true, not True."""
    return str(value).lower() if isinstance(value, bool) else str(value).replace("%", "%%")


def _add_training(parser: argparse.ArgumentParser, common: Any) -> None:
    if common is not None:
        text = "any field of TrainingArguments: --training.max_steps 500"
        common.add_argument("--training.FIELD", metavar="VALUE", help=text)
        return
    group = parser.add_argument_group("training", "every field of transformers.TrainingArguments, and OSTConfig's own")
    from ost_hf.training.config import OSTConfig, SelectionArguments

    elsewhere = {"output_dir", *(item.name for item in fields(SelectionArguments))}
    for item in fields(OSTConfig):
        if item.init and item.name not in elsewhere:
            text = " ".join(str(item.metadata.get("help", "")).split()).replace("%", "%%")
            group.add_argument(f"--training.{item.name}", metavar="VALUE", help=text)


def _dotted(command: str, rest: list[str]) -> dict[str, str]:
    """``--section.field value`` and ``--section.field=value`` out of what the parser did not know by name."""
    overrides: dict[str, str] = {}
    words = iter(rest)
    for word in words:
        name, has_value, value = word.partition("=")
        if not _takes(command, name):
            raise ConfigError(_unknown_flag(command, name))
        if not has_value:
            value = next(words, "")
            if not value or value.startswith("--"):
                raise ConfigError(f"{name} needs a value (one that begins with -- is given as {name}=VALUE)")
        overrides[name.removeprefix("--")] = value
    return overrides


def _takes(command: str, flag: str) -> bool:
    """Whether a flag is of a section that a command reads, and its field is one as far as that is known here."""
    section, dot, name = flag.removeprefix("--").partition(".")
    asked = COMMANDS[command]
    if flag in ("--strategy", "--reuse", "--import"):
        return {"--strategy": asked.strategy, "--reuse": asked.reuse, "--import": "scoring" in asked.sections}[flag]
    if not flag.startswith("--") or not dot or not name:
        return False
    if section == "training":
        return COMMANDS[command].training
    if section not in COMMANDS[command].sections:
        return False
    # Of `scoring` others may bring sections: what there is, is known where the section is built.
    return section == "scoring" or name in [item.name for item in fields(SECTIONS[section])]


def _unknown_flag(command: str, flag: str) -> str:
    """The message for a flag that a command does not take: the commands that do, or the nearest flags."""
    others = [other for other in COMMANDS if _takes(other, flag)]
    if others:
        hint = f"; {', '.join(others)} take{'s' * (len(others) == 1)} it"
    else:
        known = ["--config", "--run_dir", *(["--strategy"] if COMMANDS[command].strategy else [])]
        known += [f"--{name}" for section in COMMANDS[command].sections for name, _ in section_fields(section, False)]
        near = get_close_matches(flag, known, n=3)
        hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    return f"unknown argument of {command} {flag!r}{hint}; see `ost-hf {command} --help-all`"
