"""The ``ost-hf`` command."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from ost_hf.cli.commands import COMMANDS
from ost_hf.cli.flags import Words, read_words
from ost_hf.errors import OSTError
from ost_hf.runs.config import CONFIG_FILE, RunConfig, held_values, load_config

logger = logging.getLogger(__name__)

# The default of `training.ddp_timeout`, in seconds.
_DDP_TIMEOUT = 1800


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit status: 0, or 2 after an error that the user can mend.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in argv if not word.startswith("-")), "")
    try:
        if argv[:1] == ["study"]:
            from ost_hf.cli.study import study

            study(argv[1:])
        else:
            words = read_words(argv)
            config = load_config(words.config, words.overrides, words.run_dir, words.imports)
            _start(config, words)
    except OSTError as error:
        print(f"ost-hf {command}: error: {error}", file=sys.stderr)
        return 2
    return 0


def _start(config: RunConfig, words: Words) -> None:
    """Starts a command, in processes of its own where the configuration asks for them."""
    from ost_hf.runs import launcher

    held = _held(config, words)
    if launcher.wants_launch(config, words.command):
        _set_up_logging(logging.INFO, held)
        launcher.launch(config, words.command)
        return
    from ost_hf.parallel import is_main, set_timeout

    if words.command == "train":
        # TrainingArguments come too late to say it, and a training that hangs should end.
        set_timeout(config.training.get("ddp_timeout", _DDP_TIMEOUT))
    _set_up_logging(logging.INFO if is_main() else logging.ERROR, held)
    if words.command == "doctor":
        _print_diagnosis(config)
    elif words.command == "run":
        from ost_hf.runs.whole import run_whole

        run_whole(config)
    else:
        from ost_hf.runs.stage import run_stage

        run_stage(config, words.command)


def _print_diagnosis(config: RunConfig) -> None:
    from ost_hf.doctor.page import page
    from ost_hf.runs.doctor import examine_run

    print(page(examine_run(config)))
    print(f"written to {config.folder / 'doctor.json'}")


def _held(config: RunConfig, words: Words) -> str | None:
    """What an earlier command's flags still decide, in one line."""
    path = config.folder / CONFIG_FILE
    if words.config is not None or not COMMANDS[words.command].strategy or not path.exists():
        return None
    held = held_values(config, words.overrides)
    return f"from {path}: {', '.join(held)}" if held else None


def _set_up_logging(level: int, held: str | None) -> None:
    logging.basicConfig(level=level, format="%(message)s")
    # Libraries' own chatter is theirs; warnings of theirs still show.
    for library in ("httpx", "httpx2", "datasets", "huggingface_hub", "deepspeed", "DeepSpeed"):
        logging.getLogger(library).setLevel(logging.WARNING)
    if held is not None:
        logger.info("%s", held)


if __name__ == "__main__":
    sys.exit(main())
