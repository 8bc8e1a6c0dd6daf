"""Finding the final answer in a chain of thought, and comparing two answers."""

from __future__ import annotations

import re

from ost_hf.errors import require_choice
from ost_hf.evaluation.comparing import same_answer
from ost_hf.evaluation.surface import display_at_end, display_at_start, strip_formatting
from ost_hf.evaluation.thoughts import without_thoughts

_BOX = re.compile(r"(?:\\|(?<![^\W_]))(?:boxed|fbox)\s*\{")
# A box of one character needs no braces.
_BARE_BOX = re.compile(r"\\(?:boxed|fbox)\s*([^\W_])(?![\w{])")
# Between boxes that state one answer together.
_JOINED = re.compile(r"[\s$]*(?:,|;|,?\s*(?:and|or))[\s$]*(?:[^\W\d_]\s*=[\s$]*)?", re.IGNORECASE)

# Of JSON, and of Python.
_JSON = re.compile(
    r"([\"'])(?:final_)?answer\1\s*:\s*(?:([\"'])((?:\\.|(?!\2)[^\\]){0,2000})\2|([^,}\n]{1,200}?))\s*[,}]",
    re.IGNORECASE,
)
_TAGS = ("final_answer", "answer", "ans")
# What holds a whole solution elsewhere is an answer's tag only at the end.
_TAGS_AT_END = re.compile(r"<(solution|output)>(?!.*<\1>)(.*)</\1>\s*$", re.DOTALL | re.IGNORECASE)

_IS = r"(?:(?:is|was|are|equals|(?:would|should|must|will)\s+be)\b(?!\s+not\b)|[:=]|->|→)"
_NOUN = r"(?:ans|answer|answers(?=\s+are\b)|(?:correct|right|best)\s+(?:option|choice)|final\s+(?:result|value))"
# In the order of trust: GSM8K's mark, the words "answer is" or "answer:", a heading of its own line.
_MARKS = [
    # Before words of an announcement, and before a heading with text below, it is Markdown.
    re.compile(r"####(?![^\n]{0,100}\banswer\b)(?! ?[*_]*[^\W\d_]{4,}[^\n]{0,200}\n)", re.IGNORECASE),
    re.compile(
        rf"(?<![^\W_]){_NOUN}[*_\"\s]*(?:(?:to|for|of)\s[^\n:=]{{0,100}}?\s)?{_IS}\s*:?"
        r"|答案\s*(?:是|为)?\s*[:\N{FULLWIDTH COLON}]?"
        r"|^[#*_ ]*(?:the\s)?(?:final\s)?answer[*_ ]*$(?!\s*(?:is|was|would|should)\b)",
        re.IGNORECASE | re.MULTILINE,
    ),
]
_MARKS_BEHIND = [
    re.compile(
        r"^(.*\S) is (?:the|our|my) (?:(?:final|correct|right|best) )*(?:answer|option|choice)[*_.! ]*$", re.M | re.I
    ),
    re.compile(
        r"(?:^[^\w\n]*|[.!;]\s+|\b(?:option|choice|answer) )(\(?[A-J]\)?|\"[^\"\n]+\") is (?:the )?(?:correct|right)\b",
        re.M | re.I,
    ),
]


def extract_answer(text: str) -> str:
    r"""The last boxed, marked or announced answer in ``text``; without any of them its last line.

    Only what follows the last thought counts (``<think>...</think>`` and other models' marks), and within it the
    last ``<answer>...</answer>``. There ``\boxed{...}`` (braces may nest) wins over ``#### x``, which wins over
    ``answer: x`` and ``the answer is x``. Displayed mathematics may go over several lines. The result is empty where
    there is no answer: for empty text, and where a thought is not finished.
    """
    text = _last_tagged(without_thoughts(text))
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed.strip()
    values = _JSON.findall(text)
    if values:
        return strip_formatting((values[-1][2] or values[-1][3]).replace("\\\\", "\\"))
    # Runs of space mean nothing, and would take the patterns long.
    text = re.sub(r"\s*\n\s*", "\n", re.sub(r"[^\S\n]+", " ", text))
    for mark in _MARKS:
        for found in reversed(list(mark.finditer(text))):
            following = re.sub(r"^(?:[*_]+(?=\s|$)|\s)+", "", text[found.end() :])
            if following:
                return _statement(following)
    for mark in _MARKS_BEHIND:
        behind = mark.findall(text)
        if behind:
            return strip_formatting(behind[-1])
    display = display_at_end(text)
    if display is not None:
        return display
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("```")]
    return strip_formatting(lines[-1]) or lines[-1].strip() if lines else ""


def answers_match(prediction: str, reference: str, how: str = "math") -> bool:
    """Whether two extracted answers are the same.

    Args:
        prediction: The model's answer.
        reference: The right one.
        how: ``text`` compares text without case, formatting and outer white space; ``math`` also accepts equal numbers,
            with their units and the words around them, and what math-verify proves equal, such as ``2x`` and ``x*2``.
            The letter of a choice stands for its text where both are given, as in ``(B) 12 cm``.

    Raises:
        ConfigError: If ``math`` is asked for and math-verify is not installed.
    """
    require_choice("match", how, ["math", "text"])
    return same_answer(prediction, reference, how)


def _statement(following: str) -> str:
    """The answer that follows its mark: displayed mathematics, or the rest of the line."""
    display = display_at_start(following)
    if display is None:
        # "The answer is given by:" and the formula below.
        introduced = re.match(r"[^\d\n$\\]*\n?(?=\\\[|\$\$|\\begin\{)", following)
        display = display_at_start(following[introduced.end() :]) if introduced else None
    line = following.split("\n", 1)[0]
    return display if display is not None else strip_formatting(re.sub(r"(?<=\w)[*_]*!\s*$", "", line)) or line


def _last_tagged(text: str) -> str:
    """What the last ``<answer>`` holds; all of ``text`` if there is none. Either tag may be missing."""
    for tag in _TAGS:
        text = re.sub(rf"<(/?){tag}>", rf"<\1{tag}>", text, flags=re.IGNORECASE)
        before_end, end, _ = text.rpartition(f"</{tag}>") if f"</{tag}>" in text else (text, "", "")
        _, start, content = before_end.rpartition(f"<{tag}>")
        if start or end:
            return content if start else before_end
    at_end = _TAGS_AT_END.search(text)
    return at_end[2] if at_end else text


def _last_boxed(text: str) -> str | None:
    text = _BARE_BOX.sub(r"\\boxed{\1}", text)
    boxes = list(_BOX.finditer(text))
    found: list[str] = []
    next_start = None
    while boxes:
        box = boxes.pop()
        end = _closing_brace(text, box.end())
        if end is None or (next_start is not None and not _JOINED.fullmatch(text, end + 1, next_start)):
            break
        found.insert(0, text[box.end() : end])
        next_start = box.start()
    return ", ".join(found) if found else None


def _closing_brace(text: str, start: int) -> int | None:
    depth = 1
    for brace in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.start()
    return None
