"""Numbers as people write them, with units and words around: ``$1,234.50``, ``5 km/h``, ``Tom has 3 1/2 apples``.

A quantity is a number and what it counts. Units of measure are compared (5 km is 5000 m, and not 5 m). Other words may
be left out; where both answers have some, they must share one: 5 apples are 5, and not 5 pears.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from ost_hf.evaluation.stated import content_words, is_stated

# Not more digits than Python turns into a number without complaint; commas or spaces stand between thousands.
_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?![,\d])|\d{1,3}(?: \d{3})+(?! ?\d)|\d{1,400})(?:\.\d{1,400})?|\.\d{1,400}"
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>[-+]? ?(?:[$€£¥₹] ?)?-?)(?:(?P<whole>\d{{1,400}}) (?:and )?(?=\d+ ?/))?(?P<top>{_PLAIN})"
    rf"(?: ?/ ?(?P<bottom>{_PLAIN})|[eE](?P<exponent>[-+]?\d{{1,3}})(?!\w)"
    r"| ?(?:\\times|\\cdot|[x*·]) ?10 ?\^ ?\{? ?(?P<power>[-+]?\d{1,3}) ?\}?)?(?!\d|[.,]\d)"
)
_NUMERIC_FRACTION = re.compile(rf"\\frac ?\{{ ?(-?{_PLAIN}) ?\}} ?\{{ ?({_PLAIN}) ?\}}")
_NEGATIVE = re.compile(r"\b(?:negative|minus)\s+(?=[$€£¥₹.\d])", re.IGNORECASE)

# A longer text states no single number.
_LONGEST = 2000

FUNCTIONS = re.compile(
    r"\b(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?\b|\b(?:log|ln|exp|sqrt|pi|lim|max|min|mod|gcd|lcm|det|inf|infinity|i)\b"
)
PROSE = re.compile(r"[^\W\d_]+'[^\W\d_]+|[^\W\d_]{3,}|[^\W\d_]{2,}\s+[^\W\d_]{2,}|[一-鿿]")
# "12 units" and "12 square units" say 12.
_UNITS_OF_NOTHING = re.compile(
    r"(?<=\d)\s+(?:sq\.? |square |cubic )?units?\b(?: ?\^ ?\{? ?[23] ?\}?| squared| cubed)?", re.IGNORECASE
)

# Written before the number, as a sign is.
_CURRENCY = re.compile(r"(?<!\w)(?:Rs\.?|INR|USD|US\$|EUR|GBP) ?(?=[\d.])")


def _currency_sign(found: re.Match[str]) -> str:
    name = found[0].strip(" .")
    return {"Rs": "₹", "INR": "₹", "EUR": "€", "GBP": "£"}.get(name, "$")


_SCALES = {"thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SMALL = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
]
# "one" elsewhere than in front is rather a pronoun.
_NUMBER_WORD = re.compile(rf"^one\b(?!-)|(?<![\w-])(?:{'|'.join([*_SMALL[:1], *_SMALL[2:]])})\b(?!-)", re.IGNORECASE)

# What measures the same, each with its size; only what is unlikely to mean anything else behind a number.
_UNITS = {
    "length": "mm millimeter millimetre=1, cm centimeter centimetre=10, m meter metre=1000, in inch=25.4, ft foot "
    "feet=304.8, yd yard=914.4, km kilometer kilometre=1000000, mi mile=1609344",
    "mass": "mg milligram=1, g gram=1000, kg kilogram=1000000",
    "weight": "oz ounce=1, lb=16",
    "time": "ms millisecond=1, s sec second=1000, min minute=60000, h hr hour=3600000, day=86400000, week=604800000",
    "months": "month=1, yr year=12, decade=120",
    "volume": "ml milliliter millilitre=1, l liter litre=1000",
    "radians": "rad radian=1",
    "celsius": "celsius C=1",
    "fahrenheit": "fahrenheit F=1",
    "force": "N newton=1",
    "energy": "J joule=1, kj kilojoule=1000",
    "power": "W watt=1, kw kilowatt=1000",
    "voltage": "V volt=1",
    "current": "A amp ampere=1",
    "frequency": "hz hertz=1",
    "temperature": "K kelvin=1",
    "dollars": "cent ¢=1, $ dollar usd buck=100",
    "euros": "€ euro eur=1",
    "pounds": "penny pence=1, £ gbp=100",
    "yen": "¥ yen=1",
    "rupees": "₹ rupee=1",
    "%": "% percent percentage=1",
}
_SIZES = {
    name: (dimension, Fraction(size))
    for dimension, listed in _UNITS.items()
    for names, size in (each.split("=") for each in listed.split(","))
    for name in names.split()
}

Unit = tuple[str, Fraction]


@dataclass(frozen=True)
class Quantity:
    """A number, whether it was written as a decimal, its unit of measure, if that is known, and the words around it."""

    value: Fraction
    is_decimal: bool
    unit: Unit | None
    words: frozenset[str] = frozenset()


def read_quantity(answer: str) -> Quantity | None:
    """The one number that ``answer`` states; nothing if there are several, a formula, or doubt about the number."""
    if len(answer) > _LONGEST:
        return None
    answer = _UNITS_OF_NOTHING.sub(" ", answer)
    answer = _NUMERIC_FRACTION.sub(r" \1/\2", _NEGATIVE.sub("-", _CURRENCY.sub(_currency_sign, answer))).strip()
    if not re.search(r"\d", answer):
        answer = _NUMBER_WORD.sub(lambda word: str(_SMALL.index(word[0].lower())), answer)
    found = list(_NUMBER.finditer(answer))
    if len(found) != 1 or not is_stated(answer[: found[0].start()], answer[found[0].end() :]):
        return None
    before, after = answer[: found[0].start()].strip(" ~≈"), answer[found[0].end() :]
    before = re.sub(r"\\approx", "", before)
    scale = re.match(rf" ?({'|'.join(_SCALES)})s?\b", after, re.IGNORECASE)
    after = after[scale.end() :] if scale else after
    currency = found[0]["sign"].strip(" +-")
    unit, rest = read_unit(currency or after)
    if currency:
        rest = after
    elif unit is None and re.match(r"[^\W\d_]", after) and not re.match(r"(?:st|nd|rd|th)\b", after):
        return None
    rest = f"{before} {rest}"
    if re.search(r"[\d=+*/^<>\\_{}|∞√π±]|\)\(", rest) or FUNCTIONS.search(rest):
        return None
    # What goes on behind a comma is no unit, and has not come to its point.
    if re.match(r",\s*\w", after):
        return None
    if re.search(r"[^\W\d_]|!", rest) and not PROSE.search(f"{before} {after}"):
        return None
    value = _value(found[0])
    if value is None:
        return None
    scaled = value * (_SCALES[scale[1].lower()] if scale else 1)
    return Quantity(scaled, "." in found[0][0], unit, content_words(rest))


def last_number(answer: str) -> str:
    """The last number in ``answer``, or nothing; a sign that stands apart is an operation's."""
    found = list(_NUMBER.finditer(answer))
    return re.sub(r"^[-+] ", "", found[-1][0]) if found else ""


def read_unit(words: str) -> tuple[Unit | None, str]:
    """The unit of measure that ``words`` begin with, such as ``square feet`` or ``km/h``, and what follows it."""
    words = re.sub(r"^\s*deg(?:ree)?s? (?=(?:c|f|celsius|fahrenheit|radians?)\b)", "", words, flags=re.IGNORECASE)
    found = re.match(
        r"[\s-]*(?:(square|sq\.?|cubic|cu\.?) )?([^\W\d_]+|[$€£¥₹%¢])\.?(?: ?\^ ?\{? ?([23]) ?\}?| (squared|cubed)\b)?",
        words,
        re.IGNORECASE,
    )
    unit = _unit_named(found[2]) if found else None
    if found is None or unit is None:
        return None, words
    rest = words[found.end() :]
    # "18 in total" are no inches.
    if found[2].lower() == "in" and rest.strip(" ."):
        return None, words
    raised = 3 if (found[1] or "").startswith("cu") or found[4] == "cubed" else 2 if found[1] or found[4] else 1
    raised = int(found[3] or raised)
    dimension, size = unit[0] + str(raised) * (raised > 1), unit[1] ** raised
    per = re.match(r"\s*(?:/|\bper\b|\ban?\b)\s*(.+)", rest)
    below, after = read_unit(per[1]) if per else (None, "")
    if below is not None:
        return (f"{dimension}/{below[0]}", size / below[1]), after
    return (dimension, size), rest


def _unit_named(name: str) -> Unit | None:
    if name in ("mph", "kmh", "kph", "kmph"):
        (_, size), hour = _SIZES["mi" if name == "mph" else "km"], _SIZES["h"][1]
        return "length/time", size / hour
    lower = name if len(name) == 1 and name != "L" else name.lower()
    candidates = (lower, lower.removesuffix("s"), lower.removesuffix("es"))
    return next((_SIZES[each] for each in candidates if each in _SIZES), None)


def units_differ(one: Unit | None, other: Unit | None) -> bool:
    """Whether two units are known and measure different things."""
    return one is not None and other is not None and one[0] != other[0]


def quantities_equal(one: Quantity, other: Quantity) -> bool:
    """Whether two quantities are the same; a percentage may be written without its sign, or as a fraction of one."""
    if units_differ(one.unit, other.unit):
        return False
    if one.words and other.words and not one.words & other.words:
        return False
    is_decimal = one.is_decimal or other.is_decimal
    if one.unit is not None and other.unit is not None:
        return _close(one.value * one.unit[1], other.value * other.unit[1], is_decimal, other.unit[1])
    percentages = [each for each in (one, other) if each.unit is not None and each.unit[0] == "%"]
    if percentages:
        plain = other if percentages[0] is one else one
        if _close(percentages[0].value / 100, plain.value, is_decimal):
            return True
    return _close(one.value, other.value, is_decimal)


def _close(one: Fraction, other: Fraction, is_decimal: bool, size: Fraction = Fraction(1)) -> bool:
    """Exact numbers must be the same, decimals to six places, and to three digits at least."""
    gap = abs(one - other)
    return gap == 0 or (is_decimal and gap <= Fraction(1, 10**6) * size and gap <= max(abs(one), abs(other)) / 1000)


def _value(found: re.Match[str]) -> Fraction | None:
    def plain(digits: str) -> Fraction:
        return Fraction(re.sub(r"[ ,]", "", digits))

    value = plain(found["top"])
    if found["bottom"] is not None:
        if plain(found["bottom"]) == 0:
            return None
        value = value / plain(found["bottom"]) + int(found["whole"] or 0)
    exponent = found["exponent"] or found["power"]
    if exponent:
        value *= Fraction(10) ** int(exponent)
    return -value if "-" in found["sign"] else value
