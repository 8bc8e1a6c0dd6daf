"""When two rows say nearly the same.

A turn is compared as the set of its runs of three words (tokens, where a row brings tokens) by Jaccard similarity: runs
in both over runs in either. Two conversations are near only if every turn is near its counterpart: a long question with
another answer is another example, however small a part of the whole the answer is. What a ratio says nothing about must
be equal: turns of fewer than 20 words, system messages, roles, the number of pictures and, if asked, the numbers.

Candidates come from MinHash signatures cut into bands (Broder 1997; Leskovec, Rajaraman, Ullman, *Mining of Massive
Datasets*, chapter 3): rows that agree in all of a band are compared.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from ost_hf.data.encoding.encoded import IGNORE_INDEX
from ost_hf.data.example import Example, Message

RUN_LENGTH = 3
# One changed word breaks three runs: below this, no threshold worth setting would let a single change through,
# but for changes at the end, which is where answers are.
SHORT_TURN_WORDS = 20
PERMUTATIONS = 128
_AT_ONCE = 4096
# A missed pair is lost, a false candidate only costs a comparison.
_WEIGHTS = (0.1, 0.9)

# Scripts written without spaces (Thai to Khmer, Chinese, Japanese): each character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
# Left out, as are quotes and dashes of all kinds; other signs are words: formulas and emoji say something.
_PUNCTUATION = re.escape(".,;:!?'\"`()[]{}$") + r"\u00a1\u00ab\u00b7\u00bb\u00bf\u2010-\u205e\u3001-\u303f"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s{_PUNCTUATION}]")
_MINUS = str.maketrans({"\u2010": "-", "\u2212": "-"})


@dataclass(frozen=True)
class Said:
    """What of a row is compared.

    ``equal`` is a hash of all that must be equal, ``turns`` the runs of words of each long turn in order.
    """

    equal: int
    turns: tuple[frozenset[str], ...]

    @property
    def size(self) -> int:
        """The number of runs."""
        return sum(map(len, self.turns))


def words_of(text: str) -> list[str]:
    """Words and signs without regard to case, width, spacing and punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).translate(_MINUS).casefold())


def read_row(example: Example, same_numbers: bool) -> Said:
    """What a row says, made comparable.

    Args:
        example: The row as it stands in the data.
        same_numbers: Numbers must be equal too.
    """
    if example.tokens is not None:
        kind, turns = "tokens", _token_turns(example.tokens)
        same_numbers = False
    else:
        kind = "text"
        turns = [(message["role"], words_of(_text_of(message))) for message in example.messages]
    equal: list[Any] = [kind, len(example.images)]
    long = []
    for role, words in turns:
        if role == "system" or len(words) < SHORT_TURN_WORDS:
            equal.append([role, words])
        else:
            equal.append([role, [word for word in words if any(map(str.isdigit, word))] if same_numbers else None])
            long.append(frozenset(_runs(words)))
    digest = hashlib.blake2b(json.dumps(equal).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return Said(int.from_bytes(digest, "big"), tuple(long))


def is_near(first: Said, second: Said, similarity: float) -> bool:
    """Whether all that must be equal is, and every long turn has at least this Jaccard similarity."""
    if first.equal != second.equal:
        return False
    pairs = zip(first.turns, second.turns, strict=True)
    return all(len(a & b) >= similarity * len(a | b) for a, b in pairs)


class Signer:
    """Signs rows, so that near ones are likely to share a band.

    Args:
        similarity: The Jaccard similarity that the bands are made for.
        seed: Of the permutations.
    """

    def __init__(self, similarity: float, seed: int):
        from datasketch import MinHash, MinHashLSH

        index = MinHashLSH(threshold=similarity, num_perm=PERMUTATIONS, weights=_WEIGHTS)
        self.bands, self._band_size = index.b, index.r
        self._seed, self._minhash = seed, MinHash

    @cached_property
    def _empty(self) -> Any:
        return self._minhash(num_perm=PERMUTATIONS, seed=self._seed)

    def sign(self, said: Said) -> tuple[np.ndarray, np.ndarray]:
        """The signature of a row.

        Returns:
            One uint64 for each band, which says also what must be equal; and the lowest byte of each of the
            signature's values, the share of equal bytes being about the Jaccard similarity (Li and König 2010).
        """
        minhash = self._empty.copy()
        # The same words in another turn are something else.
        numbered = _numbered(said)
        # A batch is a matrix of runs by permutations: of a text of a million words, a gigabyte.
        while batch := [f"{turn}\0{run}".encode("utf-8", "surrogatepass") for turn, run in islice(numbered, _AT_ONCE)]:
            minhash.update_batch(batch)
        values = minhash.hashvalues[: self.bands * self._band_size].reshape(self.bands, self._band_size)
        head = said.equal.to_bytes(8, "big")
        bands = [hashlib.blake2b(head + band.tobytes(), digest_size=8).digest() for band in values]
        return (
            np.frombuffer(b"".join(bands), dtype=">u8").astype(np.uint64),
            (minhash.hashvalues & np.uint64(0xFF)).astype(np.uint8),
        )


def _numbered(said: Said) -> Iterator[tuple[int, str]]:
    return ((number, run) for number, turn in enumerate(said.turns) for run in turn)


def _runs(words: list[str]) -> list[str]:
    """Runs of three words, padded so that the first and the last word count as often as the others."""
    edge = [""] * (RUN_LENGTH - 1)
    padded = [*edge, *words, *edge]
    return [" ".join(padded[start : start + RUN_LENGTH]) for start in range(len(words) + RUN_LENGTH - 1)]


def _text_of(message: Message) -> str:
    extra = {key: value for key, value in message.items() if key not in ("role", "content")}
    texts = [part.get("text", "") for part in message["content"] if part.get("type") == "text"]
    return "\n".join([*texts, *([json.dumps(extra, sort_keys=True, default=str)] if extra else [])])


def _token_turns(tokens: dict[str, list[int]]) -> list[tuple[str, list[str]]]:
    """Token ids as words; a turn ends where the labels begin or end."""
    turns: list[tuple[str, list[str]]] = []
    for token, label in zip(tokens["input_ids"], tokens["labels"], strict=True):
        role = "prompt" if label == IGNORE_INDEX else "answer"
        if not turns or turns[-1][0] != role:
            turns.append((role, []))
        turns[-1][1].append(str(token))
    return turns
