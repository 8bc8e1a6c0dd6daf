"""Which characters of a rendered conversation are answers.

A chat template is a program: it may drop earlier thinking (Qwen3), strip white space, or move text about,
so rendering a prefix of the conversation need not give a prefix of the whole rendering. What an assistant
message contributed to the text is therefore found by experiment: its content is replaced by a marker that
occurs nowhere else, and what changes between the two renderings is its content. The span is then widened
to what the model would generate around it: back to the end of the generation prompt, and on over the
special token that closes the turn.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

Message = dict[str, Any]
Render = Callable[..., str]

# Private-use characters: no tokenizer's template treats them specially, no text begins or ends with them.
_MARKER = "\ue000marker\ue001"


def find_answer_spans(
    render: Render, messages: list[Message], closing_tokens: Iterable[str]
) -> tuple[str, list[tuple[int, int]]]:
    """Renders a conversation and finds what the assistant says in it.

    Args:
        render: ``render(messages, add_generation_prompt=False)`` gives the template's text.
        messages: The conversation; content as a list of typed parts.
        closing_tokens: Special tokens, as text; one that directly follows an answer belongs to it.

    Returns:
        The rendered text, and for each assistant message that is visible in it the half-open span of
        characters a model should learn to produce. Messages that are blank, or that the template drops, have
        no span: nothing is learnt from the bare end of a turn.
    """
    text = render(messages)
    closing_tokens = sorted((token for token in closing_tokens if token), key=len, reverse=True)
    spans: list[tuple[int, int]] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or not _says_something(message):
            continue
        marked = [*messages]
        marked[index] = {**message, "content": [{"type": "text", "text": _MARKER}]}
        start, end = _difference(text, render(marked))
        if (start, end) == (len(text), len(text)):
            continue
        floor = spans[-1][1] if spans else 0
        start = _after_generation_prompt(render, messages[:index], text, floor, start)
        end = _over_closing_token(text, end, closing_tokens, jump=bool(message.get("tool_calls")))
        if end > start:
            spans.append((start, end))
    return text, spans


def _says_something(message: Message) -> bool:
    return bool(message.get("tool_calls")) or any(part.get("text", "").strip() for part in message["content"])


def _difference(text: str, other: str) -> tuple[int, int]:
    """The span of ``text`` outside its common prefix and common suffix with ``other``."""
    if text == other:
        return len(text), len(text)
    prefix = len(os.path.commonprefix([text, other]))
    room = min(len(text), len(other)) - prefix
    suffix = len(os.path.commonprefix([text[::-1][:room], other[::-1][:room]]))
    return prefix, len(text) - suffix


def _after_generation_prompt(render: Render, before: list[Message], text: str, floor: int, start: int) -> int:
    """Moves ``start`` back to where generation would have begun, if the template shows that place."""
    if not before:
        return start
    opening = render(before)
    with_prompt = render(before, add_generation_prompt=True)
    prompt = with_prompt[len(opening) :] if with_prompt.startswith(opening) else ""
    found = text.rfind(prompt, floor, start) if prompt else -1
    return found + len(prompt) if found >= 0 else start


def _over_closing_token(text: str, end: int, closing_tokens: list[str], jump: bool) -> int:
    """Moves ``end`` over the special token that closes the turn; ``jump`` lets text (a tool call) precede it."""
    if jump:
        positions = [text.find(token, end) for token in closing_tokens]
        nearest = min((position for position in positions if position >= 0), default=None)
        if nearest is not None:
            end = nearest
    for token in closing_tokens:
        rest = text[end:]
        gap = len(rest) - len(rest.lstrip())
        if rest.startswith(token, gap):
            return end + gap + len(token)
    return end
