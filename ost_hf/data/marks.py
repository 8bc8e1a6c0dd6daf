"""Marks on the tokens of a text, carried over to the tokens that a processor makes of text and images."""

from __future__ import annotations

from itertools import pairwise

from ost_hf.errors import ModelError


def spread_marks(plain_ids: list[int], marks: list[bool], full_ids: list[int], placeholder: int | None) -> list[bool]:
    """Carries marks on tokens over to the sequence in which image placeholders were expanded.

    The text between two placeholders is the same in both sequences: the first piece opens the full
    sequence, the last closes it, those between follow each other in order.

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
        piece = plain_ids[first:last]
        if number == len(pieces) - 1:
            position = max(position, len(full_ids) - len(piece))
        while (
            number > 0 and position + len(piece) < len(full_ids) and full_ids[position : position + len(piece)] != piece
        ):
            position += 1
        if full_ids[position : position + len(piece)] != piece:
            raise ModelError("the processor rewrites the text around images; its answer tokens cannot be located")
        spread[position : position + len(piece)] = marks[first:last]
        position += len(piece)
    return spread
