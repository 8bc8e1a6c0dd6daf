"""Tokens that close a turn, where they stand in a text."""

from __future__ import annotations

from collections.abc import Iterable


class ClosingTokens:
    """Special tokens, as text; one that directly follows an answer belongs to it.

    Args:
        tokens: All that may close a turn.
        ends: Those that end any sequence.
    """

    def __init__(self, tokens: Iterable[str | None], ends: Iterable[str | None] = ()):
        self.ends = [token for token in ends if token]
        self.tokens = frozenset(token for token in tokens if token) | frozenset(self.ends)
        self._lengths = sorted({len(token) for token in self.tokens}, reverse=True)

    def at(self, text: str, place: int) -> str:
        """The longest token that stands at a place; empty if there is none."""
        return next((text[place : place + n] for n in self._lengths if text[place : place + n] in self.tokens), "")

    def at_end(self, text: str) -> str:
        """The tokens that a text ends with, one behind the other."""
        end = len(text)
        while True:
            token = next((text[end - n : end] for n in self._lengths if text[max(0, end - n) : end] in self.tokens), "")
            if not token:
                return text[end:]
            end -= len(token)

    def after(self, text: str, place: int) -> str:
        """The token that stands at a place or behind the white space there."""
        return self.at(text, after_space(text, place))


def after_space(text: str, place: int) -> int:
    """Where the white space ends that begins at a place."""
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def nearest(text: str, tokens: Iterable[str], start: int, limit: int) -> int | None:
    """Where the nearest of some tokens ends; ``None`` if none stands before ``limit``."""
    found = [(place, -len(token)) for token in tokens if (place := text.find(token, start, limit)) >= 0]
    return min(found)[0] - min(found)[1] if found else None


def over_closing_tokens(text: str, end: int, closing: ClosingTokens, several: int = 1) -> int:
    """Moves ``end`` over the special tokens that close the turn, if they follow: the first behind white space."""
    place = after_space(text, end)
    for _ in range(several):
        token = closing.at(text, place)
        if not token:
            break
        end = place = place + len(token)
    return end


def number_of_tokens(text: str, closing: ClosingTokens) -> int:
    """How many tokens a text is that closes a turn; one if it is anything else."""
    place, number, end = after_space(text, 0), 0, len(text.rstrip())
    while place < end:
        token = closing.at(text, place)
        if not token:
            return 1
        place, number = place + len(token), number + 1
    return max(1, number)
