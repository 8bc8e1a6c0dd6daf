"""Whether a sentence states the number that stands in it: ``Tom has 18 apples`` does, ``half of 18`` does not."""

from __future__ import annotations

import re

# Wherever these stand, what is said is not the words without them.
HEDGES = re.compile(
    r"\b(?:not|no|never|none|cannot|neither|nor|than|between|or|at (?:least|most|minimum|maximum)|up to|but"
    r"|unlikely|doubt\w*)\b|n't\b",
    re.IGNORECASE,
)
# Wherever these stand, a number is not what is said, or not for certain.
_DOUBTS = re.compile(
    r"\b(?:except|excluding|unlike|unlikely|hardly|barely|scarcely|perhaps|maybe|unclear|unknown|doubt\w*|wrong|incorrect"
    r"|false|impossible|differ\w*|different|unequal|far from|close to|rules? out|fails?|too)\b",
    re.IGNORECASE,
)

# What changes the number that follows.
_CHANGES_NEXT = re.compile(
    r"\b(?:over|under|above|below|beyond|exceed(?:s|ing)?|almost|nearly|twice|thrice|double|triple|half(?: an?)?"
    r"|without|before|after|until|mod|modulo|base|bound|by|and|plus|minus|less|to|times"
    r"|(?:square|cube|\w+)? ?(?:root|power|multiple|half|third|quarter|fourth|fifth|tenth|percent|minimum|maximum"
    r"|square|cube|inverse|opposite|reciprocal|factorial|double|triple)s? of)(?: the| an?)?$",
    re.IGNORECASE,
)
# "Increases by 5" and "from 3 to 5" do not say 5; "is given by 5" and "comes to 5" do.
_LEADS_TO = re.compile(
    r"\b(?:(?:given|represented|described|expressed|denoted) by"
    r"|(?:equal|equivalent|amounts?|comes?(?: out)?|sums?|adds up|simplif\w+|evaluates?|round(?:s|ed)?|reduces?|leads?"
    r"|corresponds?|works? out|adds?|tends?|converges?) to)(?: the| an?)?$",
    re.IGNORECASE,
)
# What changes the number that it follows.
_CHANGES_LAST = re.compile(
    r"\s*-?(?:squared|cubed|factorial|dozens?|hundreds?|pairs?|doubled|tripled|halved|below|under|short of|ago"
    r"|(?:percent )?(?:plus|minus|times|divided by|multiplied by|modulo|mod|to)\s+\w|and (?:some|more|a half)\b)",
    re.IGNORECASE,
)

# Words that say nothing of what is counted.
_EMPTY_WORDS = """
    about after all also altogether amount and answer approximately are around because been before being buy buys
    can conclude conclusion correct cost costs could each earn earns equal equals exactly final finally find for
    from get gets give given gives got had has have having hence her him his item its just know left make makes more
    must need needs now number object obtain only overall pay pays people per person piece remaining result right
    roughly sell sells she should spend spends still take takes that the their then there therefore these they thing
    this those thus total unit use uses value want wants was were what when where which who will with would
"""
_EMPTY = frozenset(_EMPTY_WORDS.split())


def is_stated(before: str, after: str) -> bool:
    """Whether the words before and after a number leave it what it is.

    Args:
        before: What stands before the number.
        after: What stands behind it, its unit of measure included.
    """
    before = before.rstrip(" ~$€£¥₹(\"'")
    if any(words.search(said) for words in (HEDGES, _DOUBTS) for said in (before, after)):
        return False
    changed = _CHANGES_NEXT.search(before) and not _LEADS_TO.search(before)
    return not changed and not _CHANGES_LAST.match(after)


def content_words(text: str) -> frozenset[str]:
    """The words that say what is counted, in lower case and without a plural's ending."""
    words = (word.lower() for word in re.findall(r"[^\W\d_]{3,}", text))
    return frozenset(re.sub(r"(?:(?<=[sxzh])es|(?<!s)s)$", "", word) for word in words if word not in _EMPTY)
