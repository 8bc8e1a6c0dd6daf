"""Thinking is not the answer: where a model's thoughts end, and decoding that leaves their marks in the text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# The tags of most reasoning models; marks of Mistral, Kimi, OpenThinker, Cohere, Gemma, and the channels of gpt-oss.
_TAG = r"(?:seed:)?(?:think|thinking|thoughts?|reasoning|reason|analysis|reflection|scratchpad)"
_OPENING = re.compile(
    rf"< ?{_TAG}(?: [^<>]{{0,40}})?>|<\|{_TAG}\|>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|START_THINKING\|>"
    r"|<unused94>|<\|channel>thought\b|<\|channel\|>(?!final)",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    rf"</ ?{_TAG} ?>|<\|/{_TAG}\|>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>|<unused95>|<channel\|>"
    r"|\[BEGIN FINAL RESPONSE\]|<\|channel\|>final(?:<\|message\|>)?",
    re.IGNORECASE,
)
_PARTS = re.compile(rf"{_OPENING.pattern}|{_CLOSING.pattern}|<\|message\|>", re.IGNORECASE)
# The channels of gpt-oss where special tokens were left out.
_BARE_CHANNELS = re.compile(r"analysis(?=[A-Z\s]).*?assistantfinal|analysis(?=[A-Z][a-z]).*", re.DOTALL)

# What stands before a mark that is spoken of.
_NAMES = re.compile(r"[`\"'(]$|\b(?:an?|the|of|in|into|with|use|used|using|tags?|tokens?)\s+$", re.IGNORECASE)

# What else may be left of a chat template.
_CONTROL = re.compile(r"<\|\w{1,40}\|>|</s>|\[END FINAL RESPONSE\]")

# An opening mark is one token, or a few where the tokenizer does not know it.
_TAIL = 24


def without_thoughts(text: str) -> str:
    """What follows the last thought in ``text``; nothing if that thought is not finished.

    The opening mark may be missing, because some chat templates write it into the prompt.
    """
    bare = _BARE_CHANNELS.match(text)
    if bare:
        text = text[bare.end() :]
    end = max((closing.end() for closing in _CLOSING.finditer(text)), default=0)
    return "" if _opens(text, end) else _CONTROL.sub(" ", text[end:])


def _opens(text: str, start: int) -> bool:
    """Whether a thought begins behind ``start``: some marks are only named, as in "put it into <think> tags"."""
    return any(
        not _NAMES.search(text[max(start, opening.start() - 20) : opening.start()])
        for opening in _OPENING.finditer(text, start)
    )


def opened_thought(tokenizer: Any, prompt_ids: Sequence[int]) -> str:
    """The opening mark at the prompt's end, if its chat template begins the model's thought; else nothing."""
    tail = tokenizer.decode([int(token) for token in prompt_ids[-_TAIL:]], skip_special_tokens=False).rstrip()
    openings = list(_OPENING.finditer(tail))
    return openings[-1][0] if openings and openings[-1].end() == len(tail) else ""


def decode_answer(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of generated ids without special tokens, except for those that mark thoughts."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = {token: _PARTS.fullmatch(str(each)) is None for token, each in added.items() if each.special}
    if all(special.values()):
        return str(tokenizer.decode(ids, skip_special_tokens=True))
    kept = [token for token in ids if not special.get(token, False)]
    return str(tokenizer.decode(kept, skip_special_tokens=False))
