"""Flags of the commands: every field of a section is one, under its dotted name.

The parser of a command knows a few by name, those that its ``--help`` shows. All others are taken by their section, and
are checked where the section is built, so that scorers of one's own have flags too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from ost_hf._version import __version__
from ost_hf.cli.commands import COMMANDS
from ost_hf.errors import ConfigError
from ost_hf.runs.config import SECTIONS
from ost_hf.scorers.registry import SCORERS
from ost_hf.scoring.config import DEFAULT_SCORER
from ost_hf.scoring.stages import STAGES

_STRATEGY_HELP = (
    "defaults of scoring, selection and duplicates: auto (one-step utilities, a second look, copies dropped), one_step "
    "(utility alone), paper (the paper's method to the letter) [default auto]"
)
_WIDTH = 110
# So much of a help text fits beside a flag on the first screen.
_SHORT = 70


@dataclass
class Words:
    """A command line, read.

    Attributes:
        command: The command.
        config: The YAML.
        run_dir: In place of the YAML's.
        overrides: Texts by dotted name.
    """

    command: str
    config: str | None = None
    run_dir: str | None = None
    overrides: dict[str, str] = field(default_factory=dict)


def read_words(argv: Sequence[str]) -> Words:
    """Reads the words of a command line.

    Raises:
        ConfigError: For a flag that the command does not take, or one without a value.
        SystemExit: After help or the version was printed, or for a command that there is none of.
    """
    complete = "--help-all" in argv
    parser = build_parser(complete)
    if complete:
        argv = ["--help" if word == "--help-all" else word for word in argv]
    known, rest = parser.parse_known_args(list(argv))
    words = Words(known.command, known.config, known.run_dir)
    words.overrides = {
        name: value for name, value in vars(known).items() if ("." in name or name == "strategy") and value is not None
    }
    if getattr(known, "imports", None):
        words.overrides["scoring.imports"] = json.dumps(known.imports)
    words.overrides |= _dotted(known.command, rest)
    return words


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
        more = "" if complete else f" Most people set these fields; all of them: ost-hf {name} --help-all."
        each = commands.add_parser(
            name,
            help=command.summary,
            description=f"{summary} Values come from the YAML, and flags override them.{more}",
            usage=f"ost-hf {name} [--config FILE] [--run_dir RUN_DIR] [--SECTION.FIELD VALUE ...]",
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=34, width=_WIDTH),
        )
        _add_fixed(each, name)
        for section in command.sections:
            _add_section(each, section, complete)
        if command.training:
            _add_training(each, complete)
    return parser


def _add_fixed(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument("--help-all", action="help", help="show every field")
    parser.add_argument("--config", metavar="FILE", help="YAML; by default RUN_DIR/config.yaml if it exists")
    parser.add_argument("--run_dir", "--run-dir", metavar="RUN_DIR", help="folder of this run's tables")
    if COMMANDS[name].strategy:
        parser.add_argument("--strategy", metavar="NAME", help=_STRATEGY_HELP)
    if "scoring" in COMMANDS[name].sections:
        parser.add_argument(
            "--import", dest="imports", action="append", metavar="FILE",
            help="Python file with a scorer, second stage or update rule of your own; may be repeated",
        )  # fmt: skip


def _add_section(parser: argparse.ArgumentParser, section: str, complete: bool) -> None:
    group = parser.add_argument_group(section)
    for name, item in section_fields(section, complete):
        if complete or item.metadata.get("common"):
            help_text = str(item.metadata.get("help", ""))
            text = f"{help_text if complete else _shortened(help_text)}{_default(item)}"
            group.add_argument(f"--{name}", metavar="VALUE", help=text)


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
        for name in STAGES.names() if complete else ["second_look"]:
            yield from ((f"scoring.{name}.{item.name}", item) for item in fields(STAGES.find(name).options))


def _shortened(text: str) -> str:
    """The beginning of a help text, as far as a whole part of it fits beside the flag."""
    for end in ("; ", ": ", " ("):
        if len(text) > _SHORT and end in text:
            text = text[: text.index(end)]
    return text


def _default(item: Field[Any]) -> str:
    if item.default is MISSING and item.default_factory is MISSING:
        return " [required]"
    value = item.default if item.default_factory is MISSING else item.default_factory()
    return "" if value is None or value in ((), {}) else f" [default {_as_typed(value)}]"


def _as_typed(value: Any) -> str:
    """A value as it is typed: true, not True."""
    return str(value).lower() if isinstance(value, bool) else str(value).replace("%", "%%")


def _add_training(parser: argparse.ArgumentParser, complete: bool) -> None:
    group = parser.add_argument_group("training", "every field of transformers.TrainingArguments, and OSTConfig's own")
    if not complete:
        group.add_argument("--training.FIELD", metavar="VALUE", help="such as --training.learning_rate 1e-5")
        return
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
            if not value:
                raise ConfigError(f"{name} needs a value")
        overrides[name.removeprefix("--")] = value
    return overrides


def _takes(command: str, flag: str) -> bool:
    """Whether a flag is of a section that a command reads, and its field is one as far as that is known here."""
    section, dot, name = flag.removeprefix("--").partition(".")
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
