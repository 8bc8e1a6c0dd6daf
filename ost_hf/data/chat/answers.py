"""Which characters of a rendered conversation are answers.

A chat template is a program: it may drop earlier thinking (Qwen3), strip white space, or move text about,
so rendering a prefix of the conversation need not give a prefix of the whole rendering. Where an assistant
message stands in the text is therefore found by experiment. A row with one plain answer is its prompt, its
answer, and what closes the turn, and the text says whether that is so. Any other conversation is rendered once more
with marks in all its messages: a rendering that is the same but for the marks shows where each message went. Only a
template that the marks disturb is asked for one answer at a time.

The span is then widened to what the model would generate around what it says: back to the end of the generation
prompt, and on over the special token that closes the turn.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from ost_hf.data.chat.closing import ClosingTokens, after_space, nearest, number_of_tokens, over_closing_tokens
from ost_hf.data.chat.marking import THOUGHTS, Mark, Marker
from ost_hf.data.chat.template import plain_text
from ost_hf.data.example import Message, RowError
from ost_hf.tables.statuses import BAD_ROW

Render = Callable[..., str]
Span = tuple[int, int]

_LAST_TAG = re.compile(r"<[^<>]*>\s*$")

# Stands for an answer where the marks will not do: private-use characters, which no template treats specially.
_STAND_IN = "\ue000marker\ue001"


def answer_spans(text: str, render: Render, messages: list[Message], closing: ClosingTokens) -> list[Span]:
    """Finds what the assistant says in a rendered conversation.

    Args:
        text: The rendering, ``render(messages)``.
        render: ``render(messages, add_generation_prompt=False)`` gives the template's text.
        messages: The conversation; content as a list of typed parts.
        closing: Tokens that may close a turn.

    Returns:
        For each assistant message that is visible in the text the half-open span of characters a model should
        learn to produce, its thoughts and tool calls included. Messages that are blank, or that the template drops,
        have no span: nothing is learnt from the bare end of a turn.

    Raises:
        RowError: If the template does not show tool calls, or not where they begin; or a turn in several places.
    """
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant" and _says_something(message)]
    if not answers:
        return []
    if any(message.get("tool_calls") for message in messages):
        _check_calls_are_shown(text, render, messages)
    span = _only_answer(text, render, messages, closing) if len(answers) == 1 else None
    if span is not None:
        return [span]
    return _Search(text, render, messages, closing).spans(answers)


def _check_calls_are_shown(text: str, render: Render, messages: list[Message]) -> None:
    try:
        without = render([{name: value for name, value in each.items() if name != "tool_calls"} for each in messages])
    except RowError:  # a turn of calls alone is empty without them
        return
    if without == text:
        raise RowError(
            BAD_ROW,
            "the chat template does not show the row's tool calls, so the turns that make them would be empty; name a "
            "template that shows them in encoding.chat_template",
        )


def _says_something(message: Message) -> bool:
    thoughts = any(isinstance(message.get(name), str) and message[name].strip() for name in THOUGHTS)
    return thoughts or bool(message.get("tool_calls")) or bool(plain_text([message]).strip())


def _only_answer(text: str, render: Render, messages: list[Message], closing: ClosingTokens) -> Span | None:
    """The span of a plain answer at the end of a conversation, if it follows its prompt as it is written."""
    said = plain_text(messages[-1:])
    if len(messages) < 2 or messages[-1].keys() != {"role", "content"} or not said or said != said.strip():
        return None
    prompt = render(messages[:-1], add_generation_prompt=True)
    if not text.startswith(prompt + said):
        return None
    end = len(prompt) + len(said)
    return len(prompt), over_closing_tokens(text, end, closing, number_of_tokens(text[end:], closing))


@dataclass
class _Place:
    """Where a message is seen: its first and last mark, and where its own text ends, with and without white space."""

    first: int
    last: int
    opens_with_content: bool = True
    ends: tuple[int, ...] = ()
    next: int | None = None


@dataclass
class _Boundary:
    """What a template writes between a message and the answer to it, and what of that it adds for generation."""

    between: tuple[str, ...]
    prompt: str


class _Search:
    """One conversation's answers, with what was found out about its template so far."""

    def __init__(self, text: str, render: Render, messages: list[Message], closing: ClosingTokens):
        self.text, self.render, self.messages, self.closing = text, render, messages, closing
        self._boundaries: dict[Any, _Boundary] = {}
        self._tails: dict[str, str] = {}
        self._marker, self._places = self._mark()

    def spans(self, answers: list[int]) -> list[Span]:
        """The spans of the messages ``answers``, those that are visible."""
        spans: list[Span] = []
        for index in answers:
            place = self._places.get(index) if self._marker else self._place_alone(index)
            if place is None:
                continue
            floor = spans[-1][1] if spans else 0
            start = max(floor, self._start(index, place, floor))
            end = self._end(index, place)
            if end > start:
                spans.append((start, end))
        return spans

    def _mark(self) -> tuple[Marker | None, dict[int, _Place]]:
        """Where each message is seen, from one marked rendering; no marker if marks disturb the template."""
        for inside, everything in ((False, True), (True, True), (True, False)):
            marker = Marker(self.text, self.messages, inside, everything)
            try:
                text, found = marker.find(self.render(marker.messages))
            except RowError:  # a template that refuses what it does not know
                continue
            order = [mark.message for _, mark in found]
            if text != self.text:
                continue
            if order == sorted(order):
                return marker, _gather(text, found)
            if everything:
                raise RowError(BAD_ROW, "the chat template shows a turn in several places, so its answers have none")
        return None, {}

    def _place_alone(self, index: int) -> _Place | None:
        """What changes in the text with what one message says."""
        marked = [*self.messages]
        marked[index] = {**marked[index], "content": [{"type": "text", "text": _STAND_IN}]}
        start, end = _difference(self.text, self.render(marked))
        if (start, end) != (len(self.text), len(self.text)):
            return _Place(start, end)
        if not self.messages[index].get("tool_calls"):
            return None
        # A call without content: it is what the next message's prompt has more than its own.
        prompt = self.render(self.messages[:index], add_generation_prompt=True) if index else ""
        seen = self.text.startswith(prompt) and len(self.render(self.messages[: index + 1])) > len(prompt)
        return _Place(len(prompt), len(prompt), opens_with_content=False) if seen else None

    def _start(self, index: int, place: _Place, floor: int) -> int:
        """Where generation would have begun, if the template shows that place; else where the message is seen."""
        if index == 0:
            return self._start_of_all(place)
        before = self._places.get(index - 1)
        boundary = self._boundary(index)
        for end, between in product(before.ends if before else (), boundary.between):
            start = end + len(between)
            if start <= place.first and self.text.startswith(between, end):
                if boundary.prompt or start == place.first:
                    return start
                # White space before what is said is the template's, if it adds nothing for generation.
                return place.first if place.opens_with_content else after_space(self.text, start)
        # What a user has written there is no prompt.
        low = max(floor, min(before.ends)) if before and before.ends else floor
        if boundary.prompt:
            return self._behind_prompt(boundary.prompt, low, place)
        if not place.opens_with_content:  # a call is more than what is seen of it
            prompt = self.render(self.messages[:index], add_generation_prompt=True)
            return after_space(self.text, len(prompt)) if self.text.startswith(prompt) else place.first
        return place.first

    def _behind_prompt(self, prompt: str, low: int, place: _Place) -> int:
        """Where the generation prompt ends in the text.

        A prompt may open a thought, or hold an empty one, that the finished text does not have: then without that.

        Raises:
            RowError: If a tool call is there and its prompt is not: what is seen of a call is not all of it.
        """
        while prompt.strip():
            found = self.text.rfind(prompt, low, place.first)
            if found >= 0:
                return found + len(prompt)
            prompt = _LAST_TAG.sub("", prompt) if _LAST_TAG.search(prompt) else ""
        if place.opens_with_content:
            return place.first
        raise RowError(BAD_ROW, "the chat template does not show where the assistant's tool call begins")

    def _start_of_all(self, place: _Place) -> int:
        """The start of a conversation's first message, before which nothing was asked."""
        if place.opens_with_content:
            alone = self._place_alone(0)
            return place.first if alone is None else alone.first
        asked = [{"role": "user", "content": [{"type": "text", "text": "question"}]}]
        try:
            opening, with_prompt = self.render(asked), self.render(asked, add_generation_prompt=True)
        except RowError:
            return place.first
        prompt = with_prompt.removeprefix(opening)
        return self.text.rfind(prompt, 0, place.first) + len(prompt) if prompt in self.text else place.first

    def _boundary(self, index: int) -> _Boundary:
        """What stands between a message like the one before and an answer: one is asked for each role."""
        key = self.messages[index - 1]["role"] if self._marker else index
        if key not in self._boundaries:
            self._boundaries[key] = self._find_boundary(index)
        return self._boundaries[key]

    def _find_boundary(self, index: int) -> _Boundary:
        before = (self._marker.messages if self._marker else self.messages)[:index]
        try:
            with_prompt, opening = self.render(before, add_generation_prompt=True), self.render(before)
        except RowError:  # no conversation of its own for this template
            return _Boundary((), "")
        prompt = with_prompt[len(opening) :] if with_prompt.startswith(opening) else ""
        if self._marker is None:
            return _Boundary((), prompt)
        text, found = self._marker.find(with_prompt)
        last = _gather(text, found).get(index - 1)
        return _Boundary(tuple(text[end:] for end in last.ends) if last else (), prompt)

    def _end(self, index: int, place: _Place) -> int:
        """The end of the turn, its closing token included."""
        if not self.messages[index].get("tool_calls"):
            return over_closing_tokens(self.text, place.last, self.closing, self._several)
        limit = len(self.text) if place.next is None else place.next
        end = self._end_of_calls(index, place, limit)
        if end is not None:
            return end
        end = nearest(self.text, self._closers, place.last, limit)
        if end is not None:
            return end
        # Calls may be closed in another way than answers (Llama 3.1's built-in tools).
        upto = self.render(self.messages[: index + 1])
        if self.text.startswith(upto):
            return len(upto.rstrip())
        return nearest(self.text, self.closing.tokens, place.last, limit) or place.last

    def _end_of_calls(self, index: int, place: _Place, limit: int) -> int | None:
        """Where a turn with calls ends, by what closes calls of its shape."""
        calls = self.messages[index]["tool_calls"]
        for key in (_shape(calls), calls):
            known = json.dumps(key, default=str)
            if known not in self._tails:
                self._tails[known] = self._find_tail(index)
            tail = self._tails[known]
            if tail and self.text.startswith(tail, place.last):
                return place.last + len(tail)
            # Numbers behind the last mark are this call's own; the tokens behind these close the turn.
            tokens = self.closing.at_end(tail)
            found = self.text.find(tokens, place.last, limit) if tokens else -1
            if found >= 0:
                return found + len(tokens)
        return None

    def _find_tail(self, index: int) -> str:
        """The same, asked of the conversation since the last question, with the turn as its last."""
        if self._marker is None:
            return ""
        begin = max((i for i in range(index) if self.messages[i]["role"] == "user"), default=0)
        try:
            text, found = self._marker.find(self.render(self._marker.messages[begin : index + 1]))
        except RowError:
            return ""
        return text[found[-1][0] :].rstrip() if found else ""

    @cached_property
    def _closing_text(self) -> str:
        """What closes a plain answer at the end of a conversation."""
        asked = {"role": "user", "content": [{"type": "text", "text": "question"}]}
        answered = {"role": "assistant", "content": [{"type": "text", "text": _STAND_IN}]}
        try:
            return self.render([asked, answered]).rpartition(_STAND_IN)[2]
        except RowError:
            return ""

    @cached_property
    def _several(self) -> int:
        """How many tokens close a plain answer."""
        return number_of_tokens(self._closing_text, self.closing)

    @cached_property
    def _closers(self) -> list[str]:
        """The tokens that close a plain answer."""
        token = self.closing.after(self._closing_text, 0)
        return [*self.closing.ends, *([token] if token else [])]


def _shape(value: Any) -> Any:
    """Calls without what is said in them."""
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    return [_shape(item) for item in value] if isinstance(value, list) else type(value).__name__


def _gather(text: str, found: list[tuple[int, Mark]]) -> dict[int, _Place]:
    """Each message's place, from all marks in order."""
    places: dict[int, _Place] = {}
    for position, mark in found:
        place = places.get(mark.message)
        if place is None:
            if places:
                next(reversed(places.values())).next = position
            place = places[mark.message] = _Place(position, position, mark.in_content)
        place.last = position
        rests = {mark.rest, mark.rest.rstrip()} if mark.in_content else set()
        place.ends = tuple(position + len(rest) for rest in rests if text.startswith(rest, position))
    return places


def _difference(text: str, other: str) -> Span:
    """The span of ``text`` outside its common prefix and common suffix with ``other``."""
    if text == other:
        return len(text), len(text)
    prefix = len(os.path.commonprefix([text, other]))
    room = min(len(text), len(other)) - prefix
    suffix = len(os.path.commonprefix([text[::-1][:room], other[::-1][:room]]))
    return prefix, len(text) - suffix
