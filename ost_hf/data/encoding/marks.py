"""Marks on the tokens of a text, carried over to the tokens that a processor makes of text and images."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from ost_hf.errors import ModelError


def spread_marks(plain_ids: list[int], marks: list[bool], full_ids: list[int], placeholder: int | None) -> list[bool]:
    """Carries marks on tokens over to the sequence in which image placeholders were expanded.

    The text between two placeholders is the same in both sequences: the first piece opens the full
    sequence, the last closes it, those between follow each other in order. A piece may lose an unmarked token
    beside a placeholder: some processors put line breaks around images, and tokens grow together with these.

    Args:
        plain_ids: Tokens of the text, one placeholder per image.
        marks: One per token of ``plain_ids``.
        full_ids: What the processor made of it.
        placeholder: The image token, or ``None`` if the model has none.

    Returns:
        One mark per token of ``full_ids``; image tokens are never marked.

    Raises:
        ModelError: If the pieces are not found: the processor changes the text in another way.
    """
    if plain_ids == full_ids:
        return marks
    cuts = [-1, *(i for i, token in enumerate(plain_ids) if token == placeholder), len(plain_ids)]
    pieces = [(a + 1, b) for a, b in pairwise(cuts)]
    spread = [False] * len(full_ids)
    position = 0
    for number, (first, last) in enumerate(pieces):
        opens, closes = number == 0, number == len(pieces) - 1
        for start, end in _shaved(first, last, marks, opens, closes):
            found = _locate(plain_ids[start:end], full_ids, position, opens, closes)
            if found is not None:
                break
        else:
            raise ModelError("the processor rewrites the text around images; its answer tokens cannot be located")
        spread[found : found + end - start] = marks[start:end]
        position = found + end - start
    return spread


def _shaved(first: int, last: int, marks: list[bool], opens: bool, closes: bool) -> Iterator[tuple[int, int]]:
    """A piece, and what is left of it without a token at either end or at both."""
    yield first, last
    before = not opens and last - first > 1 and not marks[first]
    behind = not closes and last - first > 1 and not marks[last - 1]
    if behind:
        yield first, last - 1
    if before:
        yield first + 1, last
    if before and behind and last - first > 2:
        yield first + 1, last - 1


def _locate(piece: list[int], full_ids: list[int], position: int, opens: bool, closes: bool) -> int | None:
    """Where a piece stands from ``position`` on; the first at the begin, the last at the end."""
    final = len(full_ids) - len(piece)
    places = range(max(final, position), final + 1) if closes else range(position, final + 1)
    if opens and not closes:
        places = places[:1]
    return next((place for place in places if full_ids[place : place + len(piece)] == piece), None)
