"""Whether two answers say the same: as text, as a choice, as a quantity, or as a formula.

An answer has several readings: ``Tom pays 18 dollars, because ...`` is read without the reason as well. Two answers are
the same if one reading of each is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ost_hf.evaluation.mathematics import formulas_equal
from ost_hf.evaluation.quantities import (
    FUNCTIONS,
    HEDGES,
    PROSE,
    Unit,
    last_number,
    quantities_equal,
    read_quantity,
    read_unit,
    units_differ,
)
from ost_hf.evaluation.surface import plain

# A longer answer is compared as text alone.
_LONGEST = 2000

# Where the answer ends and talk about it begins.
_CUT = re.compile(
    r"[.!?]\s+(?=[^\W\d_a-z]|[\"*(\\$])|。|\s—\s|\s\((?=[^()]*=)"
    r"|,?\s+\(?(?:because|since|as|which|where|when|not|instead|rather|i\.e\.|that is|meaning)\b"
)
_CONCLUDED = re.compile(r",?\s+(?:and\s+)?(?:so|thus|therefore|hence)\b,?\s*")
_NUMBER_FIRST = re.compile(
    r"([-+($€£*\\]*\d[\w.,/%$ ]*?)\s+(?:in|for|from|with|after|on|if|at|among|within|over|out of)\s"
)
# A line that works the answer out, without saying which it is: "left 7, right 6. 7 + 6 = 13".
_WORKING = re.compile(r"[^\W\d_]{2,}\b[^=]*[\d)]\s*=(?!.*\b(?:and|or)\b).*", re.DOTALL)
_TAKEN_BACK = re.compile(r"\b(?:wait|wrong|incorrect|mistake|actually|correction|sorry)\b|\bno,", re.IGNORECASE)
_CONNECTIVE = re.compile(r"(?:so|thus|therefore|hence|then|finally|answer)\b[,:]?\s+", re.IGNORECASE)
_YES_OR_NO = re.compile(r"(yes|no|true|false)\b\s*[,.;:!-]", re.IGNORECASE)
_STATED = re.compile(r".*\s(?:is|are|was|equals)\s+(?=\S)", re.DOTALL)
_SEGMENT = re.compile(r"\$[^$]+\$|\\\(.+?\\\)|\\\[.+?\\\]", re.DOTALL)

# Lower case is a letter to choose only if it is bracketed: "a" may be a variable, and "a: 5" its value.
_CHOICE = re.compile(
    r"(?:(?i:option|choice|answer)\s+)?(?:[(\[]\s*([A-Ja-j])\s*[)\]]|([A-Ja-j])\)|([A-J])(?:[.:](?=\s)|$))[\s.:]*(.*)"
)

_WORDS = re.compile(r"[^\W\d_]{3,}|[^\W\d_]{2,}(?:[\s-]+[^\W\d_]{2,})+")
# No formulas: a longer word, a symbol of chemistry, a date, a number with its base, numbers in a row.
_NO_FORMULA = re.compile(
    r"(?<![\\\w{])[^\W\d_]{4,}(?![\w{(])|(?<![\\A-Za-z])[A-Z][a-z]?\d"
    r"|\d_|\d[-/.]\d{1,2}[-/.]\d|^-?[\d.]+(?: -?[\d.]+)+$"
)


def same_answer(prediction: str, reference: str, how: str) -> bool:
    """Whether two extracted answers are the same; ``how`` as in ``answers_match``."""
    if _text(prediction) == _text(reference):
        return bool(_text(reference))
    if max(len(prediction), len(reference)) > _LONGEST:
        return False
    return any(_same(guess, right, how) for guess in _readings(prediction) for right in _readings(reference))


def _text(answer: str) -> str:
    return " ".join(answer.split()).casefold()


def _readings(answer: str) -> list[str]:
    """The answer, and the answer without what is said around it, each without formatting."""
    return [reading for reading in dict.fromkeys(map(plain, _cut_to_size(answer))) if reading]


def _cut_to_size(answer: str) -> Iterator[str]:
    yield answer
    cut = _CUT.search(answer)
    if cut and not _TAKEN_BACK.search(answer, cut.start()):
        yield from _cut_to_size(answer[: cut.start()])
    connective = _CONNECTIVE.match(answer)
    if connective:
        yield from _cut_to_size(answer[connective.end() :])
    concluded = _CONCLUDED.search(answer)
    if concluded:
        # "42, so she is right" has its answer in front, "She has 6 bags, so 42 apples" behind.
        is_first = re.match(r"[\W\d]", answer)
        yield from _cut_to_size(answer[: concluded.start()] if is_first else answer[concluded.end() :])
    if not HEDGES.search(answer):
        yield from _without_frame(answer)


def _without_frame(answer: str) -> Iterator[str]:
    """What an answer says without the words around it, if they do not doubt it."""
    for pattern in (_YES_OR_NO, _NUMBER_FIRST):
        found = pattern.match(answer)
        if found:
            yield found[1]
    if _WORKING.fullmatch(answer) and not _CUT.search(answer):
        yield last_number(answer)
    segments = list(_SEGMENT.finditer(answer))
    if len(segments) == 1 and PROSE.search(answer[: segments[0].start()]):
        yield answer[segments[0].start() :]
    stated = _STATED.match(answer)
    if stated and not segments:
        yield answer[stated.end() :]


def _same(guess: str, right: str, how: str) -> bool:
    if _comparable_text(guess) == _comparable_text(right):
        return True
    choices = _CHOICE.fullmatch(guess), _CHOICE.fullmatch(right)
    if any(choices):
        verdict = _same_choice(guess, right, choices, how)
        if verdict is not None:
            return verdict
    if how == "text":
        return False
    pairs = [(first, second) for first in _sides(guess, right) for second in _sides(right, guess)]
    return any(_same_value(first, second) for first, second in pairs)


def _same_value(guess: str, right: str) -> bool:
    one, other = read_quantity(guess), read_quantity(right)
    if one is None and other is not None:
        one = read_quantity(_with_decimal_point(guess))
    elif other is None and one is not None:
        other = read_quantity(_with_decimal_point(right))
    if one is not None and other is not None:
        return quantities_equal(one, other)
    return _same_formula(guess, right)


def _with_decimal_point(answer: str) -> str:
    """``3,14`` as ``3.14``; beside a list it is one, beside a number it is written as much of Europe does."""
    return re.sub(r"^(-?\d+),(\d{1,2}|\d{4,})(?![\d,])", r"\1.\2", answer)


def _comparable_text(answer: str) -> str:
    return re.sub(r"^(?:the|an?)\s+(?=\w)", "", _text(answer)).strip(" .!")


def _same_choice(
    guess: str, right: str, choices: tuple[re.Match[str] | None, re.Match[str] | None], how: str
) -> bool | None:
    """The verdict if letters decide; a letter with its text may be answered by either."""
    (first, first_text), (second, second_text) = (
        ("", answer) if choice is None else ((choice[1] or choice[2] or choice[3]).upper(), choice[4])
        for answer, choice in zip((guess, right), choices, strict=True)
    )
    if first and second:
        # Behind "C." and "C:" a text may be a name, such as C. elegans.
        are_bare = any(choice is not None and choice[3] and choice[4] for choice in choices)
        same_text = not (are_bare and first_text and second_text) or _same(first_text, second_text, how)
        return first == second and same_text
    if (first and not first_text) or (second and not second_text):
        return None
    return _same(first_text, second_text, how)


def _sides(answer: str, other: str) -> list[str]:
    """What ``answer`` says as an equation, if ``other`` is none: ``3 x 6 = 18 dollars`` says ``18 dollars``.

    Both sides of an approximation are answers.
    """
    is_chain = not re.search(r"[<>!:]=|[;&]|,(?!\d{3})|\b(?:and|or)\b", answer) and not _CUT.search(answer)
    if not is_chain or re.search(r"=|\\approx", other):
        return [answer]
    first, *more = [side.strip() for side in answer.split(r"\approx")]
    return [side.split("=")[-1].strip() for side in (first, *more) if side]


def _same_formula(guess: str, right: str) -> bool:
    (first, first_unit), (second, second_unit) = _formula_and_unit(guess), _formula_and_unit(right)
    if units_differ(first_unit, second_unit) or not first or not second:
        return False
    if any(_WORDS.fullmatch(each) or _NO_FORMULA.search(each) for each in (first, second)):
        return False
    if _brackets(first) != _brackets(second) and "" not in (_brackets(first), _brackets(second)):
        return False
    return formulas_equal(_as_latex(first), _as_latex(second))


def _formula_and_unit(answer: str) -> tuple[str, Unit | None]:
    r"""The formula before the words: ``25\pi`` and square centimetres of ``25\pi cm^2``."""
    for space in re.finditer(r"(?<=[\w)}\]])\s+(?=[^\W\d_])", answer):
        words = answer[space.end() :]
        unit, rest = read_unit(words)
        is_word = re.match(r"[^\W\d_]{3,}", words) and not re.match(rf"(?:and|or|{FUNCTIONS.pattern})\b", words)
        if (unit or is_word) and not re.search(r"[\d=+*/^<>\\_{}]", rest):
            return answer[: space.start()], unit
    return answer, None


def _brackets(answer: str) -> str:
    """The brackets around a list, set, tuple or interval."""
    listed = re.fullmatch(r"(\\\{|[(\[]).*,.*(\\\}|[)\]])", answer)
    return listed[1] + listed[2] if listed else ""


def _as_latex(formula: str) -> str:
    return re.sub(r"(?<![\\\w])(pi|sin|cos|tan|log|ln)(?![a-z])", r"\\\1 ", formula)
