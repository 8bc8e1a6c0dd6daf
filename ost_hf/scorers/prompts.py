"""Rows as text, and the prompts that are made of them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.example import Example, Message
from ost_hf.errors import DataError
from ost_hf.models import ModelConfig


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
    """The prompt for one turn of a conversation; a judge's is given the ends of its scale too."""
    return prompt.render(**asdict(conversation), **asdict(turn), **scale)


def named_model(name: str) -> ModelConfig:
    """A folder, a name on the Hub, or ``name@revision``."""
    model, _, revision = name.rpartition("@")
    if not model or Path(name).expanduser().exists():
        return ModelConfig(name)
    return ModelConfig(model, revision=revision)
