"""Letters of a multiple choice: ``(B)``, ``B. 12 cm``, ``12 cm (B)``, ``I would go with option B``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ost_hf.evaluation.stated import HEDGES

_NAMED = r"(?:(?i:option|choice|answer|letter)\s*:?\s*)"
_CHOSEN = (
    r"(?i:(?:i|we)(?:'d|\s+would|\s+will)?\s+(?:choose|pick|select|go\s+with)|"
    r"(?:this|that|it|which)\s+(?:corresponds?\s+to|is|must\s+be|would\s+be)|"
    r"correct(?:\s+(?:option|choice|answer))?\s*(?:is|:)?|so|thus|therefore|hence)\s*[,:]?\s*"
)
# Lower case is a letter to choose only if it is bracketed: "a" may be a variable, and "a: 5" its value.
_LETTER = r"(?:[(\[{]\s*(?P<bracketed>[A-Ja-j])\s*[)\]}]|(?P<half>[A-Ja-j])\)|(?P<bare>[A-J]))"
_FIRST = re.compile(
    rf"(?:{_CHOSEN})?{_NAMED}?{_LETTER}"
    r"(?P<between>\s*$|[.:]\s+|\s*[-\N{EN DASH}\N{EM DASH}]\s+|,\s+|\s+(?=\(|because\b|since\b))?(?P<text>.*)",
    re.DOTALL,
)
_LAST = re.compile(rf"(?P<text>\S.*?)\s*\((?:{_NAMED})?(?P<bracketed>[A-J])\)", re.DOTALL)
_ANOTHER = re.compile(r"\s*(?:,|/|&|and|or|nor)?\s*[(\[]?[A-J][)\]]?(?:\W|$)|\s*(?:or|and|nor)\b", re.IGNORECASE)


_SEVERAL = re.compile(
    r"(?i:options?|choices?)?\s*[(\[]?[A-J][)\]]?(?:\s*(?:,(?:\s*and\b)?|;|&|\band\b)\s*[(\[]?[A-J][)\]]?)+"
)


@dataclass(frozen=True)
class Choice:
    """A letter in upper case, the text beside it, and whether text and letter may be one name: ``C. elegans``."""

    letter: str
    text: str
    may_be_name: bool = False


def read_choice(answer: str) -> Choice | None:
    """The one choice that ``answer`` names by its letter; nothing if it names two, or none."""
    found = _FIRST.fullmatch(answer)
    if found:
        bare, between, text = found["bare"], found["between"], found["text"].strip()
        letter = found["bracketed"] or found["half"] or bare
        if bare and between is None:
            return None
        # "B, C" names two; so does "(A) or (B)".
        if text and _ANOTHER.match(text):
            return None
        if bare and between is not None and "," in between and not re.match(r"[\d$\\(]|[^\W\d_]{2}", text):
            return None
        bracketed_text = re.fullmatch(r"\(([^()]*)\)", text)
        return Choice(letter.upper(), bracketed_text[1] if bracketed_text else text, bool(bare and text))
    found = _LAST.fullmatch(answer)
    if found and not re.search(r"[(\[][A-J][)\]]", found["text"]) and not HEDGES.search(found["text"]):
        return Choice(found["bracketed"], found["text"])
    return None


def letters_of(answer: str) -> frozenset[str]:
    """The letters of an answer that names several choices, in whatever order; none of any other answer."""
    return frozenset(re.findall(r"\b[A-J]\b", answer)) if _SEVERAL.fullmatch(answer) else frozenset()
