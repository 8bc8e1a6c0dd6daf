"""What must not happen to a pool, however malformed: each is looked for, not only an exception."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from malformed.pools import Pool

LONGEST = 500
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
_BYTES = re.compile(r"(\\x[0-9a-f]{2}){8}|[A-Za-z0-9+/]{120}")


def of_texts(texts: Iterable[str], folder: str) -> list[str]:
    """Harms in messages and details: too long, picture bytes, memory addresses, paths of this machine.

    Args:
        texts: Log messages, errors, details of rows.
        folder: A folder of this machine that none of them may name.
    """
    harms = []
    for text in texts:
        short = f"{text[:80]!r}…"
        if len(text) > LONGEST:
            harms.append(f"a message of {len(text):,} characters: {short}")
        if _ADDRESS.search(text):
            harms.append(f"a memory address in a message: {short}")
        if _BYTES.search(text):
            harms.append(f"bytes in a message: {short}")
        if folder in text:
            harms.append(f"a local path in a message: {short}")
    return harms


def of_statuses(pool: Pool, statuses: list[str]) -> list[str]:
    """Harms in what became of rows.

    Args:
        pool: With what is expected of each row.
        statuses: What each row got.
    """
    if pool.cells and len(statuses) != len(pool.cells):
        return [f"{len(pool.cells)} rows went in, {len(statuses)} came out"]
    harms = []
    for cell, status in zip(pool.cells, statuses, strict=False):
        usable = status in ("ok", "duplicate", "truncated")
        if cell.expected == "ok" and not usable:
            harms.append(f"a good row ({cell.kind}: {str(cell.value)[:40]!r}) became {status}")
        if cell.expected == "bad" and status == "ok":
            harms.append(f"a row that cannot be meant ({cell.kind}) is ok")
    return harms


def of_answers(pool: Pool, answers: list[str | None]) -> list[str]:
    """Rows whose answer does not read as it was written; tokenizers may compose letters (NFC).

    Args:
        pool: With the text of each answer, where it is known.
        answers: What is supervised of each row, without what closes the turn; ``None`` for a row that is not usable.
    """
    pairs = zip(pool.cells, answers, strict=False)
    return [
        f"{cell.text!r} became {answer!r} ({cell.kind})"
        for cell, answer in pairs
        if cell.text is not None and answer is not None and _composed(answer) != _composed(cell.text)
    ]


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def of_control(pool: Pool, ids: list[list[int] | None], control: dict[str, int]) -> list[str]:
    """Rows in which a token that the user typed became control.

    Args:
        pool: With the cells.
        ids: The tokens of each row; ``None`` for a row that is not usable.
        control: Special tokens by their text. A row of question and answer has as many of each as a good row.
    """
    usual = next((row for cell, row in zip(pool.cells, ids, strict=False) if cell.kind == "good" and row), None)
    if usual is None:
        return []
    return [
        f"a typed {token!r} became control"
        for cell, row in zip(pool.cells, ids, strict=False)
        for token, number in control.items()
        if cell.kind in ("typed token", "strange text") and row is not None and row.count(number) != usual.count(number)
    ]
