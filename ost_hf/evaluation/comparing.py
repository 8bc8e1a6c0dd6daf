"""Whether two answers say the same: as text, as a choice, as a quantity, or as a formula.

A prediction has several readings: ``Tom pays 18 dollars, because ...`` is read without the reason as well. The right
answer is meant whole. It is read without the words around it only if what is left is a value, a choice, or yes or no:
``18, because ...`` is 18, but ``not red`` is not ``not``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ost_hf.evaluation.choices import Choice, letters_of, read_choice
from ost_hf.evaluation.mathematics import formulas_equal
from ost_hf.evaluation.quantities import (
    FUNCTIONS,
    PROSE,
    Unit,
    last_number,
    quantities_equal,
    read_quantity,
    read_unit,
    units_differ,
)
from ost_hf.evaluation.stated import HEDGES, is_stated
from ost_hf.evaluation.surface import plain

# A longer answer is compared as text alone.
_LONGEST = 2000

# An answer that could be cut in more ways is no answer, but a loop.
_MOST_CUTS = 24
# What is taken back in a longer text is not looked for.
_LONGEST_SENTENCE = 300

# Where the answer ends and talk about it begins.
_CUT = re.compile(
    r"(?<!\b[A-Z])(?<!\b(?:Dr|Mr|Ms|St|Mt|Jr|Sr|No|vs))(?<!\b(?:Mrs|Fig))[.!?]\s+(?=[^\W\d_a-z]|[\"*(\\$])|。|\s—\s"
    r"|\s\((?=[^()]*(?:=|\w\s*[x\N{MULTIPLICATION SIGN}*/+-]\s*\d))"
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
_YES_OR_NO = re.compile(
    r"(yes|no|true|false)(?:\s*(?:[,.;:!]|\s[-\N{EM DASH}]\s)(?!\s*(?:yes|no|true|false|or|and|wait)\b).*)?",
    re.IGNORECASE | re.DOTALL,
)
# "Not 5 but 6", "not 5, it is 6".
_CORRECTED = re.compile(
    r".*\bnot\s[^,;.]*?(?:\s+but|[,;]\s+(?:but|rather|it\s+is|it's|instead))\s+(?:rather\s+)?(\S.*)", re.DOTALL
)
_TIME = r"(?:in|after|for|within|over)\s+[\d.,]+\s+(?:second|minute|hour|day|week|month|year)s?"
_TIMES_APART = re.compile(rf"{_TIME},?\s+(?=\S)|\s+{_TIME}$", re.IGNORECASE)
_STATED = re.compile(r".*\s(?:is|are|was|equals)\s+(?=\S)", re.DOTALL)
_PRONOUN = re.compile(r"(?:it|they|he|she|this|that)\s+(\w+)", re.IGNORECASE)
_SEGMENT = re.compile(r"\$[^$]+\$|\\\(.+?\\\)|\\\[.+?\\\]", re.DOTALL)

_WORDS = re.compile(r"[^\W\d_]{3,}|[^\W\d_]{2,}(?:[\s-]+[^\W\d_]{2,})+")
# No formulas: a longer word, a symbol of chemistry, a date, a number with its base, numbers in a row.
_NO_FORMULA = re.compile(
    r"(?<![\\\w{])[^\W\d_]{4,}(?![\w{(])|(?<![\\A-Za-z])[A-Z][A-Za-z]?\d"
    r"|\d_|\d[-/.]\d{1,2}[-/.]\d|^\d+-\d+$|^-?[\d.]+(?: -?[\d.]+)+$"
)
# What only a formula has. Letters alone may be a word.
_MATHEMATICAL = re.compile(rf"\d|\\[a-zA-Z{{]|[=<>+*/^|]|\s-\s|^-|{FUNCTIONS.pattern}")
_VARIABLES = re.compile(
    r"-?[^\W\d_](?:\s*(?:,|;|and|or)\s*-?[^\W\d_])*"
    r"|(?!(?:a[hmnstx]|b[eiy]|do|e[hrx]|go|h[aeio]|i[dfnst]|l[ao]|m[aeuy]|n[oy]|o[fhknrx]|pi|so|t[ov]|u[hkmps]|we|ye)$)[a-z]{2}"
)


def same_answer(prediction: str, reference: str, how: str) -> bool:
    """Whether two extracted answers are the same; ``how`` as in ``answers_match``."""
    if _text(prediction) == _text(reference):
        return bool(_text(reference))
    if max(len(prediction), len(reference)) > _LONGEST:
        return False
    guesses = _readings(prediction)
    whole, *shorter = _readings(reference) or [""]
    rights = [whole, *(right for right in shorter if _is_closed(right))]
    return any(_same(guess, right, how) for guess in guesses for right in rights if guess and right)


def _is_closed(right: str) -> bool:
    """Whether an answer is a value, a choice, or yes or no: of a text, each word counts."""
    is_value = read_quantity(right) is not None or (_MATHEMATICAL.search(right) and not PROSE.search(right))
    return bool(is_value or read_choice(right) or _YES_OR_NO.fullmatch(right))


def _text(answer: str) -> str:
    return " ".join(answer.split()).casefold()


def _readings(answer: str) -> list[str]:
    """The answer, and the answer without what is said around it, each without formatting."""
    return [reading for reading in dict.fromkeys(map(plain, _cut_to_size(answer))) if reading]


def _cut_to_size(answer: str) -> Iterator[str]:
    waiting, seen = [answer], {answer}
    while waiting and len(seen) <= _MOST_CUTS:
        text = waiting.pop(0)
        yield text
        for shorter in _shorter(text):
            if shorter not in seen:
                seen.add(shorter)
                waiting.append(shorter)
        corrected = _CORRECTED.fullmatch(text) if len(text) <= _LONGEST_SENTENCE else None
        if corrected:
            yield corrected[1]
        if not HEDGES.search(text):
            yield from _without_frame(text)
            yield _TIMES_APART.sub("", text, count=1)


def _shorter(answer: str) -> Iterator[str]:
    """The answer without talk behind it, or before it."""
    cut = _CUT.search(answer)
    if cut and not _TAKEN_BACK.search(answer, cut.start()):
        yield answer[: cut.start()]
    connective = _CONNECTIVE.match(answer)
    if connective:
        yield answer[connective.end() :]
    concluded = _CONCLUDED.search(answer)
    if concluded:
        # "42, so she is right" has its answer in front, "She has 6 bags, so 42 apples" behind.
        is_first = re.match(r"[\W\d]", answer)
        yield answer[: concluded.start()] if is_first else answer[concluded.end() :]


def _without_frame(answer: str) -> Iterator[str]:
    """What an answer says without the words around it, if they do not doubt it."""
    found = _NUMBER_FIRST.match(answer)
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
    done = _PRONOUN.fullmatch(answer)
    if done:
        yield done[1]


def _same(guess: str, right: str, how: str) -> bool:
    if _comparable_text(guess) == _comparable_text(right):
        return True
    if _comparable_text(right) in ("yes", "no", "true", "false"):
        found = _YES_OR_NO.fullmatch(guess)
        return found is not None and found[1].lower() == _comparable_text(right)
    letters = letters_of(right)
    if letters:
        return letters == letters_of(guess)
    choices = read_choice(guess), read_choice(right)
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
    text = re.sub(r"^(?:the|an?)\s+(?=\w)", "", re.sub(r"(?<=\w) ?_ ?(?=\w)", "", _text(answer)))
    text = re.sub(r"^[(\[]\s*([^\W\d_])\s*[)\]]$", r"\1", text)
    return re.sub(r"(?<![\d)])!$", "", text.strip(" ."))


def _same_choice(guess: str, right: str, choices: tuple[Choice | None, Choice | None], how: str) -> bool | None:
    """The verdict if letters decide; a letter with its text may be answered by either."""
    first, second = choices
    if first and second:
        are_names = (first.may_be_name or second.may_be_name) and first.text and second.text
        return first.letter == second.letter and (not are_names or _same(first.text, second.text, how))
    if first:  # the right answer has no letter: what is said beside the guess's letter counts
        return _same(first.text, right, how) if first.text else None
    assert second is not None
    return _same(guess, second.text, how) if second.text else None


def _sides(answer: str, other: str) -> list[str]:
    """What ``answer`` says as an equation, if ``other`` is none: ``3 x 6 = 18 dollars`` says ``18 dollars``.

    Both sides of an approximation are answers.
    """
    answer = re.sub(r"^[^\W\d_]\s*\\?in\s+(?=[(\[\\])", "", answer)
    is_chain = not re.search(r"[<>!:]=|[;&]|,(?!\d{3})|\b(?:and|or)\b", answer) and not _CUT.search(answer)
    if not is_chain or re.search(r"=|\\approx", other):
        return [answer]
    first, *more = [side.strip() for side in answer.split(r"\approx")]
    return [_said_by_equation(side) for side in (first, *more) if side]


def _said_by_equation(side: str) -> str:
    """The right side of ``x = 12``, and the left one of ``12 = x``."""
    parts = [part.strip() for part in side.split("=")]
    return parts[0] if len(parts) == 2 and re.fullmatch(r"[^\W\d_]", parts[1]) else parts[-1]


def _same_formula(guess: str, right: str) -> bool:
    (first, first_unit), (second, second_unit) = _formula_and_unit(guess), _formula_and_unit(right)
    if units_differ(first_unit, second_unit) or not first or not second:
        return False
    if any(_WORDS.fullmatch(each) or _NO_FORMULA.search(each) for each in (first, second)):
        return False
    if not all(_MATHEMATICAL.search(each) or _VARIABLES.fullmatch(each) for each in (first, second)):
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
        formula = answer[: space.start()]
        is_formula = _MATHEMATICAL.search(formula) and is_stated("", answer[space.start() :])
        if is_formula and (unit or is_word) and not re.search(r"[\d=+*/^<>\\_{}]", rest):
            return formula, unit
    return answer, None


def _brackets(answer: str) -> str:
    """The brackets around a list, set, tuple or interval."""
    listed = re.fullmatch(r"(\\\{|[(\[]).*,.*(\\\}|[)\]])", answer)
    return listed[1] + listed[2] if listed else ""


def _as_latex(formula: str) -> str:
    return re.sub(r"(?<![\\\w])(pi|sin|cos|tan|log|ln)(?![a-z])", r"\\\1 ", formula)
