"""Finding the final answer in a chain of thought, and comparing two answers."""

from __future__ import annotations

import re
import threading
from typing import Any

from ost_hf.errors import ConfigError, require_choice

# In the order of trust: an explicit box, GSM8K's mark, the words "answer is" / "answer:". The greedy opening
# goes to the last of them, also when a line has several.
_MARKS = [
    re.compile(r"(?s:.*)####\s*(\S.*)"),
    re.compile(r"(?s:.*)\banswer\s*(?:is\b|:|=)\s*:?\s*(\S.*)", re.IGNORECASE),
]

# One word, or several: two letters alone may be a product.
_WORDS = re.compile(r"[^\W\d_]{3,}|[^\W\d_]{2,}(?:[\s-]+[^\W\d_]{2,})+")


def extract_answer(text: str) -> str:
    r"""The last boxed, marked or announced answer in ``text``; without any of them its last line.

    ``\boxed{...}`` (braces may nest) wins over ``#### x``, which wins over ``answer: x`` and
    ``the answer is x``. The result is empty only for empty text.
    """
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed.strip()
    for mark in _MARKS:
        found = mark.match(text)
        if found:
            return _trim(found[1])
    lines = [line for line in text.splitlines() if line.strip()]
    return _trim(lines[-1]) if lines else ""


def answers_match(prediction: str, reference: str, how: str = "math") -> bool:
    """Whether two extracted answers are the same.

    Args:
        prediction: The model's answer.
        reference: The right one.
        how: ``text`` compares text without case and outer white space; ``math`` also accepts what
            math-verify proves equal, such as ``1/2`` and ``0.5``. To it units are nothing, lists are sets, and a date
            is a difference: such answers want ``text``.

    Raises:
        ConfigError: If ``math`` is asked for and math-verify is not installed.
    """
    require_choice("match", how, ["math", "text"])
    if _normalised(prediction) == _normalised(reference):
        return bool(_normalised(reference))
    if how == "text" or not prediction.strip() or not reference.strip():
        return False
    # As mathematics the letters of a word would be factors, and "cat" equal to "act"; "xy" may be a product.
    if _WORDS.fullmatch(prediction.strip()) or _WORDS.fullmatch(reference.strip()):
        return False
    parse, verify = load_math_verify()
    # math-verify's time limits use signals, which only a main thread can receive.
    seconds = 5 if threading.current_thread() is threading.main_thread() else None
    gold = parse(_as_latex(reference), parsing_timeout=seconds)
    guess = parse(_as_latex(prediction), parsing_timeout=seconds)
    return bool(gold) and bool(guess) and bool(verify(gold, guess, timeout_seconds=seconds))


def load_math_verify() -> tuple[Any, Any]:
    """Its ``parse`` and ``verify``.

    Raises:
        ConfigError: If math-verify is not installed.
    """
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise ConfigError("comparing answers as mathematics needs math-verify: pip install 'ost-hf[eval]'") from error
    return parse, verify


def _last_boxed(text: str) -> str | None:
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    start += len(r"\boxed{")
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
    return None


def _trim(answer: str) -> str:
    return answer.strip().rstrip(".").strip("*").rstrip(".").strip()


def _normalised(answer: str) -> str:
    return " ".join(answer.split()).casefold()


def _as_latex(answer: str) -> str:
    return answer if "$" in answer else f"${answer}$"
