"""Thinking is not the answer: where a model's thoughts end, and decoding that leaves their marks in the text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# The tags of most reasoning models; Mistral's, Kimi's and OpenThinker's marks; and the channels of gpt-oss.
_TAG = r"(?:seed:)?(?:think|thinking|thoughts?|reasoning)"
_OPENING = re.compile(rf"<{_TAG}>|\[THINK\]|◁think▷|<\|begin_of_thought\|>|<\|channel\|>(?!final)", re.IGNORECASE)
_CLOSING = re.compile(
    rf"</{_TAG}>|\[/THINK\]|◁/think▷|<\|end_of_thought\|>|<\|channel\|>final(?:<\|message\|>)?", re.IGNORECASE
)
_PARTS = re.compile(rf"{_OPENING.pattern}|{_CLOSING.pattern}|<\|message\|>", re.IGNORECASE)

# What else may be left of a chat template.
_CONTROL = re.compile(r"<\|\w{1,40}\|>|</s>")

# An opening mark is one token, or a few where the tokenizer does not know it.
_TAIL = 24


def without_thoughts(text: str) -> str:
    """What follows the last thought in ``text``; nothing if that thought is not finished.

    The opening mark may be missing, because some chat templates write it into the prompt.
    """
    end = max((closing.end() for closing in _CLOSING.finditer(text)), default=0)
    return "" if _OPENING.search(text, end) else _CONTROL.sub(" ", text[end:])


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
