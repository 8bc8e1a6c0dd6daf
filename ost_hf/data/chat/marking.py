"""Messages with marks in their text, and where the marks come out in the text that a chat template makes of them.

Marks stand around a text with its white space, or inside that, so that a template which strips finds what it would
have found. Whether the marks changed anything is seen afterwards: without them, the text must be the one without marks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ost_hf.data.example import Message

# Fields in which templates look for an assistant's thoughts.
THOUGHTS = ("reasoning_content", "reasoning", "thinking")

# Templates split content here, and may drop what is before.
_THOUGHT_TAG = re.compile(r"(</?(?:think|thinking|thought|reasoning)>|\[/?THINK\])")
_PRIVATE_USE = range(0xE000, 0xF8FF)


@dataclass(frozen=True)
class Mark:
    """What a mark says: it stands at the begin or the end of what an assistant says, or inside another's text.

    Attributes:
        message: Which message.
        in_content: Whether it stands in the content, not in a thought or a tool call.
        rest: Of a message that is no answer, the text from here to its end.
    """

    message: int
    in_content: bool = True
    rest: str = ""


class Marker:
    """Marks the messages of one conversation.

    Args:
        text: The conversation's text without marks: signs that do not occur in it make the marks.
        messages: The conversation.
        inside: Put the marks inside the white space around a text.
        everything: Mark what is no answer too, and answers before a tag that they begin with.
    """

    def __init__(self, text: str, messages: list[Message], inside: bool, everything: bool = True):
        self._inside, self._all = inside, everything
        signs = (chr(code) for code in _PRIVATE_USE if chr(code) not in text)
        self._open, self._close = next(signs), next(signs)
        self._marks: list[Mark] = []
        self.messages = [
            self._answer(number, message)
            if message["role"] == "assistant"
            else self._other(number, message)
            if everything
            else message
            for number, message in enumerate(messages)
        ]

    def find(self, marked: str) -> tuple[str, list[tuple[int, Mark]]]:
        """A marked rendering without its marks, and each mark's place in that."""
        pieces = re.split(f"{self._open}([0-9]+){self._close}", marked)
        found, place, seen = [], 0, set()
        for piece, number in zip(pieces[::2], pieces[1::2], strict=False):
            place += len(piece)
            mark = self._marks[int(number)]
            # The name of a call comes again in the header of its result (gpt-oss): that is not the call.
            if mark.in_content or number not in seen:
                found.append((place, mark))
            seen.add(number)
        return "".join(pieces[::2]), found

    def _mark(self, mark: Mark) -> str:
        self._marks.append(mark)
        return f"{self._open}{len(self._marks) - 1}{self._close}"

    def _around(self, text: str, mark: Mark) -> str:
        core = text.strip()
        if not core:
            return text
        if not self._inside:
            return f"{self._mark(mark)}{text}{self._mark(mark)}"
        start = text.index(core)
        return f"{text[:start]}{self._mark(mark)}{core}{self._mark(mark)}{text[start + len(core) :]}"

    def _around_pieces(self, text: str, mark: Mark) -> str:
        """Marks around what stands between the tags of thoughts, and before a tag or behind one at either end."""
        pieces = _THOUGHT_TAG.split(text)
        opens, closes = not pieces[0].strip(), not pieces[-1].strip()
        if self._all and len(pieces) > 1:
            pieces[1] = (self._mark(mark) if opens else "") + pieces[1]
        pieces[::2] = [self._around(piece, mark) for piece in pieces[::2]]
        if self._all and len(pieces) > 1:
            pieces[-2] += self._mark(mark) if closes else ""
        return "".join(pieces)

    def _answer(self, number: int, message: Message) -> Message:
        said, beside = Mark(number), Mark(number, in_content=False)
        marked = dict(message)
        # In the order in which templates write them, so that marks come out in the order in which they were made.
        for name in THOUGHTS:
            if isinstance(message.get(name), str):
                marked[name] = self._around(message[name], beside)
        marked["content"] = [
            {**part, "text": self._around_pieces(part["text"], said)} if part.get("text") else part
            for part in message["content"]
        ]
        if message.get("tool_calls"):
            marked["tool_calls"] = [self._call(call, beside) for call in message["tool_calls"]]
        return marked

    def _call(self, call: dict[str, Any], mark: Mark) -> dict[str, Any]:
        marked = dict(call)
        if isinstance(call.get("function"), dict):
            marked["function"] = self._call(call["function"], mark)
        if isinstance(call.get("name"), str):
            marked["name"] = self._around(call["name"], mark)
        if "arguments" in call:
            marked["arguments"] = self._leaves(call["arguments"], mark)
        return marked

    def _leaves(self, value: Any, mark: Mark) -> Any:
        if isinstance(value, str):
            return self._around(value, mark)
        if isinstance(value, dict):
            return {key: self._leaves(item, mark) for key, item in value.items()}
        return [self._leaves(item, mark) for item in value] if isinstance(value, list) else value

    def _other(self, number: int, message: Message) -> Message:
        """One mark at the end of the message's last text, or inside a text that may end with a tag to look for."""
        parts = list(message["content"])
        last = max((place for place, part in enumerate(parts) if part.get("text", "").strip()), default=None)
        if last is None:
            return message
        text = parts[last]["text"]
        core = text.strip()
        place = text.index(core) + (len(core) // 2 if core[-1] in ">]" else len(core))
        mark = self._mark(Mark(number, rest=text[place:]))
        parts[last] = {**parts[last], "text": text[:place] + mark + text[place:]}
        return {**message, "content": parts}
