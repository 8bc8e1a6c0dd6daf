"""The ``ost-hf`` command."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import MISSING, Field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ost_hf._version import __version__
from ost_hf.errors import ConfigError, OSTError
from ost_hf.runs.config import RunConfig, held_values, load_config, section_fields

logger = logging.getLogger(__name__)

# The default of `training.ddp_timeout`, in seconds.
_DDP_TIMEOUT = 1800

_SCORED = ("pool", "anchors", "duplicates", "encoding", "proxy", "scoring")

# What each command reads; the flags of other sections would do nothing there.
COMMANDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "score": ("score every row of a pool", (*_SCORED, "accelerate")),
    "doctor": ("measure how far this proxy's utilities can be trusted, and what they cost", _SCORED),
    "select": ("choose the rows to keep", ("pool", "selection")),
    "train": ("fine-tune the target on the kept rows", ("pool", "encoding", "target", "accelerate")),
    "evaluate": ("measure exact match of the fine-tuned target", ("evaluation", "encoding", "accelerate")),
    "run": (
        "score, select, train and evaluate",
        (*_SCORED, "selection", "target", "evaluation", "accelerate"),
    ),
    "push": ("push kept rows, scores and a dataset card to the Hub", ("pool", "hub")),
}

# These also take --training.FIELD for every field of OSTConfig.
TRAINING_COMMANDS = ("train", "run")

# Where one name gives scoring and selection their defaults.
STRATEGY_COMMANDS = ("score", "doctor", "select", "run")
_STRATEGY_HELP = (
    "defaults of scoring, selection and duplicates: `auto` (one-step utilities, a second look, copies dropped), "
    "`one_step` (utility alone), `paper` (the paper's method to the letter) [default auto]"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit status: 0, or 2 after an error that the user can mend.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["study"]:
        return _study(argv[1:])
    asks_for_help = any(word in ("-h", "--help") for word in argv)
    parser = build_parser(training_help=asks_for_help and any(word in TRAINING_COMMANDS for word in argv))
    known, rest = parser.parse_known_args(argv)
    try:
        overrides = {
            name: value
            for name, value in vars(known).items()
            if ("." in name or name == "strategy") and value is not None
        }
        overrides |= _training_flags(known.command, rest)
        config = load_config(known.config, overrides, known.run_dir)
        _run(known.command, config, _held(known.command, known.config, config, overrides))
    except OSTError as error:
        print(f"ost-hf {known.command}: error: {error}", file=sys.stderr)
        return 2
    return 0


def build_parser(training_help: bool = False) -> argparse.ArgumentParser:
    """The parser of all commands.

    Args:
        training_help: List ``TrainingArguments`` too, which takes seconds to import.
    """
    parser = argparse.ArgumentParser(
        prog="ost-hf",
        description="One-Step-Train data selection: score a noisy pool with a small proxy, keep what helps, "
        "fine-tune the target on it.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("study", help="compare ways of selecting, from one YAML to tables and a plot", add_help=False)
    for name, (summary, sections) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}. Values come from the YAML; flags override them. "
            "Flag values are read as YAML: null, true, 0.5, text.",
            allow_abbrev=False,
        )
        command.add_argument("--config", metavar="FILE", help="YAML; by default RUN_DIR/config.yaml if it exists")
        command.add_argument("--run_dir", "--run-dir", metavar="RUN_DIR", help="folder of this run's tables")
        if name in STRATEGY_COMMANDS:
            command.add_argument("--strategy", metavar="NAME", help=_STRATEGY_HELP)
        for section in sections:
            _add_section(command, section)
        if name in TRAINING_COMMANDS:
            _add_training(command, training_help)
    return parser


def _study(argv: list[str]) -> int:
    """A study has a YAML of its own: many runs, not one."""
    from ost_hf.study.main import main as study

    try:
        study(argv)
    except OSTError as error:
        print(f"ost-hf study: error: {error}", file=sys.stderr)
        return 2
    return 0


def _add_section(command: argparse.ArgumentParser, section: str) -> None:
    group = command.add_argument_group(section)
    for item in section_fields(section):
        flag = f"--{section}.{item.name}"
        group.add_argument(flag, metavar="VALUE", help=f"{item.metadata['help']}{_default(item)}")


def _default(item: Field[Any]) -> str:
    if item.default is None:
        return ""
    text = "required" if item.default is MISSING else f"default {str(item.default).lower()}"
    return f" [{text}]"


def _add_training(command: argparse.ArgumentParser, complete: bool) -> None:
    group = command.add_argument_group("training", "every field of transformers.TrainingArguments, and OSTConfig's own")
    if not complete:
        return
    from dataclasses import fields

    from ost_hf.training.config import OSTConfig

    for item in fields(OSTConfig):
        if item.init and item.name not in ("output_dir", "keep_ratio", "keep_count", "min_utility"):
            text = " ".join(str(item.metadata.get("help", "")).split()).replace("%", "%%")
            group.add_argument(f"--training.{item.name}", metavar="VALUE", help=text)


def _training_flags(command: str, rest: list[str]) -> dict[str, str]:
    """``--training.x value`` and ``--training.x=value`` out of what the parser did not know."""
    overrides: dict[str, str] = {}
    words = iter(rest)
    for word in words:
        name, has_value, value = word.partition("=")
        if not _is_training(command, name):
            raise ConfigError(_unknown_flag(command, name))
        if not has_value:
            value = next(words, "")
            if not value:
                raise ConfigError(f"{name} needs a value")
        overrides[name.removeprefix("--")] = value
    return overrides


def _unknown_flag(command: str, name: str) -> str:
    """The message for a flag that a command does not take: the commands that do, or the nearest flags."""
    others = [other for other in COMMANDS if name in _flags(other) or _is_training(other, name)]
    if others:
        hint = f"; {', '.join(others)} take{'s' * (len(others) == 1)} it"
    else:
        near = get_close_matches(name, _flags(command), n=3)
        hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    return f"unknown argument of {command} {name!r}{hint}; see `ost-hf {command} --help`"


def _flags(command: str) -> list[str]:
    fixed = ["--config", "--run_dir", *(["--strategy"] if command in STRATEGY_COMMANDS else [])]
    return fixed + [f"--{section}.{item.name}" for section in COMMANDS[command][1] for item in section_fields(section)]


def _is_training(command: str, name: str) -> bool:
    return command in TRAINING_COMMANDS and name.startswith("--training.")


def _held(command: str, given_file: str | None, config: RunConfig, overrides: dict[str, str]) -> str | None:
    """What an earlier command's flags still decide, in one line."""
    path = config.folder / "config.yaml"
    if given_file is not None or command not in STRATEGY_COMMANDS or not path.exists():
        return None
    held = held_values(config, overrides)
    return f"from {path}: {', '.join(held)}" if held else None


def _run(command: str, config: RunConfig, held: str | None) -> None:
    path = config.folder / "config.yaml"
    before = path.read_text() if path.exists() else None
    made = _made(config.folder)
    try:
        _start(command, config, held)
    except OSTError:
        # A command that was refused must not leave its settings behind as if the tables were made with them; of one
        # that failed later some were.
        if before is not None and _made(config.folder) == made:
            path.write_text(before)
        raise


def _made(folder: Path) -> dict[Path, int]:
    """What stages have written, and when."""
    patterns = ("proxy/proxy.json", "scores/**/part-*.parquet", "selection.parquet", "target/**/*", "metrics.json")
    return {path: path.stat().st_mtime_ns for pattern in patterns for path in folder.glob(pattern) if path.is_file()}


def _start(command: str, config: RunConfig, held: str | None) -> None:
    from ost_hf.runs import launcher

    if launcher.wants_launch(config, command):
        _set_up_logging(logging.INFO, held)
        launcher.launch(config, command)
        return
    from ost_hf.parallel import is_main, set_timeout

    if command == "train":
        # TrainingArguments come too late to say it, and a training that hangs should end.
        set_timeout(config.training.get("ddp_timeout", _DDP_TIMEOUT))
    _set_up_logging(logging.INFO if is_main() else logging.ERROR, held)
    # The doctor only looks: settings that it tries must not replace those that tables in the folder were made with.
    if is_main() and not (command == "doctor" and (config.folder / "config.yaml").exists()):
        config.write()
    importlib.import_module(f"ost_hf.{'cli' if command == 'doctor' else 'runs'}.{command}").run(config)


def _set_up_logging(level: int, held: str | None) -> None:
    logging.basicConfig(level=level, format="%(message)s")
    # Libraries' own chatter is theirs; warnings of theirs still show.
    for library in ("httpx", "httpx2", "datasets", "huggingface_hub", "deepspeed", "DeepSpeed"):
        logging.getLogger(library).setLevel(logging.WARNING)
    if held is not None:
        logger.info("%s", held)


if __name__ == "__main__":
    sys.exit(main())
