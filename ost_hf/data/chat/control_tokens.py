"""Tokens that steer a model, where a row's own text holds them: there they would end a turn, or begin another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from ost_hf.data.chat.template import plain_text
from ost_hf.data.example import Message, RowError
from ost_hf.tables.statuses import BAD_ROW

# Special in some vocabularies, and content all the same: thoughts, and where things are in a picture.
_CONTENT = re.compile(
    r"[<\[]/?\|?(?:think|thinking|thought|reasoning)\|?[>\]]|<\|(?:object_ref|box|quad)_(?:start|end)\|>",
    re.IGNORECASE,
)
_TAG = re.compile(r"<(/?)([A-Za-z]\w+)>")
_DELIMITED = re.compile("<[|\uff5c].*[|\uff5c]>")
# Written as words by templates of models that have no tokens for these.
_WORDS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")


class ControlTokens:
    """What a row's text must not hold.

    A token of the vocabulary is control if the tokenizer or the processor names it (as its end of sequence, its image
    token), calls it special, writes it between bars (``<|user|>``), or if the template writes it. Pairs of tags
    (``<think>`` and ``</think>``, ``<tool_call>`` and ``</tool_call>``) are content unless they are named.

    Args:
        processing_class: The tokenizer or processor.
        template: The text of the chat template, empty without one.
    """

    def __init__(self, processing_class: Any, template: str):
        tokenizer = getattr(processing_class, "tokenizer", processing_class)
        named = set(_named(processing_class)) | set(_named(tokenizer))
        added = tokenizer.added_tokens_decoder
        written = {str(token) for token in added.values()}
        self._texts: dict[int, str] = {}
        for token_id, token in added.items():
            text = str(token)
            steers = token.special or _DELIMITED.fullmatch(text) or text in template
            if text in named or (steers and not _is_content(text, written)):
                self._texts[token_id] = text
        self._words = [word for word in _WORDS if word in template and word not in written]

    def check(self, ids: Iterable[int], messages: list[Message], arguments: dict[str, Any]) -> None:
        """Refuses a row that was tokenised to ``ids`` if its own text brought control tokens in.

        Raises:
            RowError: ``bad_row``; it names the token.
        """
        present = [self._texts[token_id] for token_id in self._texts.keys() & set(ids)]
        beside = [{key: value for key, value in message.items() if key != "content"} for message in messages]
        for held in [*(plain_text([message]) for message in messages), *_strings([beside, arguments])]:
            for token in [*present, *self._words]:
                if token in held:
                    raise RowError(
                        BAD_ROW,
                        f"the row's text holds {token}, which steers the model: it would be read as part of the chat "
                        "format, not as text; take it out, or write it in another way",
                    )


def _named(one: Any) -> Iterator[str]:
    """The tokens that a tokenizer or processor has a name for, such as ``eos_token`` or ``image_token``."""
    special = getattr(one, "special_tokens_map", None) or {}
    yield from (str(value) for value in special.values() if not isinstance(value, (list, tuple)))
    for name in ("image_token", "boi_token", "eoi_token", "video_token", "audio_token"):
        if getattr(one, name, None):
            yield str(getattr(one, name))


def _is_content(text: str, written: set[str]) -> bool:
    if _CONTENT.fullmatch(text):
        return True
    tag = _TAG.fullmatch(text)
    return tag is not None and f"<{'' if tag[1] else '/'}{tag[2]}>" in written


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)
