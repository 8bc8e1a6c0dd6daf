"""What a formatted answer says: without Markdown, delimiters of mathematics, and commands that only change looks."""

from __future__ import annotations

import re
import unicodedata

_ENVIRONMENT = r"\{(?:equation|align|aligned|gather|gathered|displaymath|math|multline|eqnarray|split)\*?\}"
_OPENER = re.compile(rf"\\\[|\$\$|\\begin{_ENVIRONMENT}")
_CLOSER = re.compile(rf"\\\]|\$\$|\\end{_ENVIRONMENT}")

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SIGNS = str.maketrans(
    {
        "\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{FRACTION SLASH}": "/", "\N{DIVISION SLASH}": "/", "÷": "/",
        "\N{MULTIPLICATION SIGN}": r"\times ", "⋅": r"\cdot ", "∞": r"\infty ", "π": r"\pi ", "θ": r"\theta ",
        "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "\N{UNION}": r"\cup ",
        "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "°": " degrees ", "“": '"', "”": '"',
        "\N{LEFT SINGLE QUOTATION MARK}": "'", "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    }
)  # fmt: skip

# Thousands as Europe and programs write them, where hardly anything else can be meant.
_GROUPED = re.compile(
    r"(?<![\d.,_(\[{])(?:\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}|\d{1,3}(?:_\d{3})+)"
    r"(?![\d_]|[.,]\d)"
)

# In this order: what is written, and what it says.
_REWRITES = [
    (re.compile(pattern), said)
    for pattern, said in (
        (r"</?(?:b|i|u|em|strong|p|span|div)\s*>|<br\s*/?>", " "),
        (r"(?<=[\u4e00-\u9fff])(?=\d)|(?<=\d)(?=[\u4e00-\u9fff])", " "),
        (r"(?<![\\A-Za-z])pi(?![A-Za-z])", r"\\pi "),
        (r"√\s*(\d+|[^\W\d_])", r"\\sqrt{\1}"),
        (r"√\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\frac\s*(\d)\s*(\d)(?!\d)", r"\\frac{\1}{\2}"),
        (r"\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits)(?![a-zA-Z])", ""),
        (r"(?<=\d)(?:\{,\}|\\[,;:!]|~)(?=\d{3}(?!\d))", ","),
        (r"(?<=\d),\\!\s*(?=\d{3})|\{,\}", ","),
        (r"_\{(\w)\}", r"_\1"),
        (r"(?<![\\\w])infinity(?!\w)", r"\\infty "),
        (r"\\!", ""),
        (r"(?<!\\)(?:\\[,;: ]|\\q?quad(?![a-zA-Z])|~(?=\S))", " "),
        (r"\^\s*\{?\s*(?:\\circ|\\degree)(?![a-zA-Z])\s*\}?|\\degree(?![a-zA-Z])", " degrees "),
        (r"\\([%#&])", r"\1"),
        (r"\\leq(?![a-zA-Z])", r"\\le "),
        (r"\\geq(?![a-zA-Z])", r"\\ge "),
    )
]
_LOOKS = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt)|mbox|boxed|fbox|underline|emph)\s*\{"
    r"((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
)
_BOLD = re.compile(r"(?<![\w*])(\*\*|__|`+)(?=\S)([^*`]*?\S)\1(?![\w*])")
# A dollar sign that opens mathematics stands before its first character, and the closing one behind the last.
_INLINE = re.compile(r"\$(?=\S)([^$]*[^$\s])\$(?!\d)")
_ESCAPED_DOLLAR = "\x00"


def plain(answer: str) -> str:
    r"""The answer as one line without formatting: ``**$\dfrac{1}{2}\text{ cm}$.**`` says ``\frac{1}{2} cm``."""
    answer = re.sub(r"[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+", lambda found: "^{" + found[0].translate(_SUPERSCRIPTS) + "}", answer)
    answer = re.sub(r"(?<=\d)(?=[¼-¾⅐-⅞])", " ", answer)
    answer = unicodedata.normalize("NFKC", answer).translate(_SIGNS)
    answer = _GROUPED.sub(_without_groups, _last_line(answer))
    for pattern, said in _REWRITES:
        answer = pattern.sub(said, answer)
    for _ in range(4):
        answer = _LOOKS.sub(r" \1 ", answer)
    answer = _BOLD.sub(r"\2", answer)
    answer = answer.replace(r"\$", _ESCAPED_DOLLAR).replace("$$", "")
    answer = re.sub(r"^\s*\$\s+([^$]*?)\s*\$\s*$", r"\1", answer)
    answer = re.sub(r"(?<!\\)\\[()\[\]]", " ", _INLINE.sub(r" \1 ", answer)).replace(_ESCAPED_DOLLAR, "$")
    return " ".join(strip_formatting(answer).replace("**", "^").split())


def _without_groups(found: re.Match[str]) -> str:
    if "." in found[0]:
        return found[0].replace(".", "").replace(",", ".")
    return found[0].replace("_", "")


def strip_formatting(answer: str) -> str:
    """The answer without what may stand around it: space, marks of Markdown, quotes, and the sentence's end."""
    answer, before = _BOLD.sub(r"\2", answer), None
    while answer != before:
        before = answer
        answer = answer.strip().rstrip(".,;:。").strip('*`"').strip()
        for mark in ("_", "'"):
            if len(answer) > 1 and answer[0] == answer[-1] == mark:
                answer = answer[1:-1]
    return answer


def display_at_start(text: str) -> str | None:
    """What displayed mathematics at the beginning of ``text`` says, over however many lines."""
    opener = _OPENER.match(text)
    closer = _CLOSER.search(text, opener.end()) if opener else None
    return text[opener.end() : closer.start()].strip() if opener and closer else None


def display_at_end(text: str) -> str | None:
    """What displayed mathematics at the end of ``text`` says."""
    tail = text.rstrip(" \n.,*")
    closers = [closer for closer in _CLOSER.finditer(tail) if closer.end() == len(tail)]
    if not closers:
        return None
    openers = list(_OPENER.finditer(tail, 0, closers[0].start()))
    return tail[openers[-1].end() : closers[0].start()].strip() if openers else None


def _last_line(formula: str) -> str:
    """Of aligned equations the last one; rows of a matrix or cases stay together."""
    bare = re.sub(rf"\\(?:begin|end){_ENVIRONMENT}", " ", formula)
    if "\\begin" in bare or (bare == formula and "&" not in formula):
        return formula
    lines = [line for line in re.split(r"\\\\", bare) if line.strip()]
    return re.sub(r"(?<!\\)&", " ", lines[-1]) if lines else bare
