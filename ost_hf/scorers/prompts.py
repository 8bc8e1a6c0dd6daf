"""Rows as text, and the prompts that are made of them: Jinja files, ours beside this one or the user's."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import jinja2.sandbox

from ost_hf.data.encoding import EncodedDataset
from ost_hf.data.rows import Example, Message
from ost_hf.errors import ConfigError, DataError
from ost_hf.models import ModelConfig
from ost_hf.scorers.config import ScorerConfig

_VARIABLES = {"system", "turns", "question", "answer"}
# The judge's alone: DEITA's scale is fixed.
_SCALE = {"lowest", "highest"}
# The options of each scorer that name a prompt file, and our own file.
_PROMPTS = {
    "judge": {"judge_prompt_file": "judge/prompt.jinja"},
    "deita": {
        "deita_complexity_prompt_file": "deita/complexity_prompt.jinja",
        "deita_quality_prompt_file": "deita/quality_prompt.jinja",
    },
}


@dataclass(frozen=True)
class Turn:
    """What the assistant was asked and what it said: one training target of a conversation."""

    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """A row as text: its system message and its turns, in order."""

    system: str
    turns: list[Turn]


def read_conversation(example: Example, mark_images: bool) -> Conversation:
    """The row as text.

    A question is all that was said since the previous answer, tools' results included; what follows the last answer
    is taught to nobody and left out.

    Args:
        example: A row that is not tokenised.
        mark_images: Write ``[image 1]``, ``[image 2]``, ... where the images stand; else nothing.
    """
    system, asked, turns = [], [], []
    images = 0
    for message in example.messages:
        parts = []
        for part in message["content"]:
            if part.get("type") == "image":
                images += 1
                parts += [f"[image {images}]"] if mark_images else []
            else:
                parts.append(part.get("text", ""))
        text = "\n".join(parts + _tool_calls(message)).strip()
        if message["role"] == "system":
            system.append(text)
        elif message["role"] != "assistant":
            asked.append(text)
        elif text:
            turns.append(Turn("\n\n".join(asked), text))
            asked = []
    return Conversation("\n\n".join(system), turns)


def _tool_calls(message: Message) -> list[str]:
    return [json.dumps(call, ensure_ascii=False, default=str) for call in message.get("tool_calls") or []]


def require_text(scorer: str, pool: EncodedDataset) -> None:
    """Raises ``DataError`` if the pool's rows are tokens already."""
    if pool.rows.layout == "tokenized":
        raise DataError(
            f"scorer {scorer!r} reads text, but the pool's rows are input_ids and labels; give the rows as messages, "
            "prompt/completion or question/answer"
        )


def render(prompt: jinja2.Template, conversation: Conversation, turn: Turn, **scale: float) -> str:
    """The prompt for one turn of a conversation; the judge's is given its :func:`scale_of` too."""
    return prompt.render(**asdict(conversation), **asdict(turn), **scale)


def scale_of(config: ScorerConfig) -> dict[str, float]:
    """``lowest`` and ``highest`` of the judge's scale; whole numbers are written without a decimal point."""
    ends = {"lowest": config.judge_lowest, "highest": config.judge_highest}
    return {name: int(end) if float(end).is_integer() else end for name, end in ends.items()}


def load_prompt(config: ScorerConfig, option: str) -> jinja2.Template:
    """The prompt that an option names, or ours.

    Raises:
        ConfigError: If there is no such file, it is no Jinja, or it asks for a variable that does not exist.
    """
    text = _read(config, option)
    variables = _VARIABLES | (_SCALE if option in _PROMPTS["judge"] else set())
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    try:
        unknown = sorted(jinja2.meta.find_undeclared_variables(environment.parse(text)) - variables)
        prompt = environment.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"scoring.{option} is not valid Jinja, line {error.lineno}: {error.message}") from error
    if unknown:
        raise ConfigError(f"scoring.{option} asks for {', '.join(unknown)}; there are: {', '.join(sorted(variables))}")
    return prompt


def prompt_digests(config: ScorerConfig) -> dict[str, str]:
    """A hash of what each prompt of the scorer says, by option: the manifest must know words, not file names."""
    return {
        option: hashlib.blake2b(_read(config, option).encode(), digest_size=10).hexdigest()
        for option in _PROMPTS.get(config.scorer, {})
    }


def _read(config: ScorerConfig, option: str) -> str:
    named: Any = getattr(config, option)
    path = Path(named).expanduser() if named else Path(__file__).parent / _own_file(option)
    if not path.is_file():
        raise ConfigError(f"scoring.{option}: there is no file {named}")
    return path.read_text(encoding="utf-8")


def _own_file(option: str) -> str:
    return next(files[option] for files in _PROMPTS.values() if option in files)


def named_model(name: str) -> ModelConfig:
    """A folder, a name on the Hub, or ``name@revision``."""
    model, _, revision = name.rpartition("@")
    if not model or Path(name).expanduser().exists():
        return ModelConfig(name)
    return ModelConfig(model, revision=revision)
