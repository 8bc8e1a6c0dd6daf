"""Whether two formulas are equal, as math-verify proves it, within bounds of length, depth and size."""

from __future__ import annotations

import re
import threading
from functools import cache
from typing import Any

from ost_hf.errors import ConfigError

# Beyond these a formula is no answer, and proving anything of it may take for ever.
_LONGEST = 1000
_DEEPEST = 40
# A tower of powers, an exponent or factorial of five digits or more, a factorial of one: computed as written, they
# would fill the memory, and no time limit interrupts such a computation.
_HUGE = re.compile(r"\^[^+*=,]*\^|(?:\^|\*\*)\W*[\d,]{5,}|\)\s*\^\W*\d{4,}|\d{5,}\W*!|!\W*!")

_SECONDS = 5


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


def formulas_equal(prediction: str, reference: str) -> bool:
    """Whether math-verify proves two formulas, without delimiters, equal; not if it takes too long.

    Raises:
        ConfigError: If math-verify is not installed.
    """
    parse, verify = load_math_verify()
    if not (_is_bounded(prediction) and _is_bounded(reference)):
        return False
    # math-verify's time limits use signals, which only a main thread can receive.
    seconds = _SECONDS if threading.current_thread() is threading.main_thread() else None
    gold, guess = (
        parse(f"${formula}$", _latex_alone(), fallback_mode="no_fallback", parsing_timeout=seconds)
        for formula in (reference, prediction)
    )
    return bool(gold and guess) and bool(verify(gold, guess, timeout_seconds=seconds, allow_set_relation_comp=True))


@cache
def _latex_alone() -> list[Any]:
    """The whole formula or nothing: no number picked out of it, and no letter dropped as a unit."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig

    return [
        LatexExtractionConfig(
            normalization_config=NormalizationConfig(
                basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
            )
        )
    ]


def _is_bounded(formula: str) -> bool:
    depth = deepest = 0
    for character in formula:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return len(formula) <= _LONGEST and deepest <= _DEEPEST and not _HUGE.search(formula)
