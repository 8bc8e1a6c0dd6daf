"""Rows that stand twice: within the pool, and in the pool and the anchors or the evaluation set.

Exact duplicates have the same content hash. Near ones (:mod:`ost_hf.duplicates.near`) say nearly the same about nearly
the same pictures. Groups are the connected components over the pairs that were compared and found near, so that two
rows of a group may be joined by a third only. Which row of a group is kept, :mod:`ost_hf.duplicates.policy` says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ost_hf.data.rows import Rows
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.duplicates.near import NearFinder

EXACT, NEAR = "exact", "near"


@dataclass(frozen=True)
class Copy:
    """What a row repeats: ``kind`` is ``exact`` or ``near``, ``of`` the other row's example_id."""

    kind: str
    of: str


@dataclass
class Duplicates:
    """What was found.

    Attributes:
        groups: Rows of the pool that repeat one another, two or more in each group.
        anchors: Rows of the pool that repeat an anchor.
        evaluation: Rows of the pool that repeat a row of the evaluation set.
        anchors_in_evaluation: Rows of the anchors that repeat a row of the evaluation set.
        near_pairs: How many pairs were compared and found near, by where.
    """

    groups: list[list[int]] = field(default_factory=list)
    anchors: dict[int, Copy] = field(default_factory=dict)
    evaluation: dict[int, Copy] = field(default_factory=dict)
    anchors_in_evaluation: dict[int, Copy] = field(default_factory=dict)
    near_pairs: dict[str, int] = field(default_factory=dict)


# What the target will be evaluated on: nothing, one set, or several.
Evaluation = Rows | Sequence[Rows] | None


def evaluation_sets(evaluation: Evaluation) -> list[Rows]:
    """The evaluation sets as a list."""
    return [evaluation] if isinstance(evaluation, Rows) else list(evaluation or ())


def find_duplicates(
    pool: Rows, config: DuplicatesConfig, anchors: Rows | None = None, evaluation: Evaluation = None
) -> Duplicates:
    """Finds what repeats, whatever is to be done about it; where the action is ``off``, nothing is looked for.

    Exact copies of anchors are always found: ``anchors.overlap`` decides about them.

    Called on every process of a run; each finds the same.

    Args:
        pool: The candidates.
        config: Whether to look for near duplicates, and what is near.
        anchors: The anchor set.
        evaluation: The rows that the target will be evaluated on, in one set or several.
    """
    contents = _Contents(pool)
    found = Duplicates()
    links = _Links(len(contents.rows))
    anchor_contents = None if anchors is None else _Contents(anchors)
    tests = [] if config.evaluation == "off" else [_Contents(rows) for rows in evaluation_sets(evaluation)]
    if anchor_contents is not None:
        found.anchors = contents.exact_copies(anchor_contents)
    for test in tests:
        found.evaluation = contents.exact_copies(test) | found.evaluation
        if anchor_contents is not None:
            found.anchors_in_evaluation = anchor_contents.exact_copies(test) | found.anchors_in_evaluation
    if config.near:
        _find_near(found, links, contents, anchor_contents, tests, config)
    if config.within_pool != "off":
        found.groups = [rows for rows in contents.expand(links.groups()) if len(rows) > 1]
    return found


class _Contents:
    """A set of rows by content: near duplicates are looked for among one row of each content."""

    def __init__(self, source: Rows):
        by_hash: dict[str, list[int]] = defaultdict(list)
        for row, content_hash in enumerate(source.content_hashes):
            by_hash[content_hash].append(row)
        self.source = source
        self.rows = list(by_hash.values())
        self.by_hash: Mapping[str, list[int]] = by_hash
        self.number_of = {rows[0]: number for number, rows in enumerate(self.rows)}

    @property
    def first_rows(self) -> list[int]:
        return [rows[0] for rows in self.rows]

    def exact_copies(self, other: _Contents) -> dict[int, Copy]:
        return {
            row: Copy(EXACT, other.name(other.by_hash[content_hash][0]))
            for content_hash, rows in self.by_hash.items()
            if content_hash in other.by_hash
            for row in rows
        }

    def name(self, row: int) -> str:
        return self.source.example_ids[row]

    def expand(self, groups: Iterable[list[int]]) -> list[list[int]]:
        return sorted(sorted(row for number in numbers for row in self.rows[number]) for numbers in groups)


class _Links:
    """Union-find over numbers."""

    def __init__(self, count: int):
        self._parent = list(range(count))

    def root(self, number: int) -> int:
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def join(self, first: int, second: int) -> None:
        self._parent[self.root(first)] = self.root(second)

    def groups(self) -> Iterable[list[int]]:
        members: dict[int, list[int]] = defaultdict(list)
        for number in range(len(self._parent)):
            members[self.root(number)].append(number)
        return members.values()


def _find_near(
    found: Duplicates,
    links: _Links,
    pool: _Contents,
    anchors: _Contents | None,
    tests: list[_Contents],
    config: DuplicatesConfig,
) -> None:
    sets = [pool, *([] if anchors is None else [anchors]), *tests]
    finder = NearFinder([known.source for known in sets], [known.first_rows for known in sets], config)
    if config.within_pool != "off":
        found.near_pairs["pool"] = _join_near(finder, links, pool)
    for name, one, others, copies in (
        ("anchors", pool, sets[1:2] if anchors is not None and config.anchors != "off" else [], found.anchors),
        ("evaluation", pool, tests, found.evaluation),
        ("anchors_in_evaluation", anchors, tests, found.anchors_in_evaluation),
    ):
        if one is not None and others:
            found.near_pairs[name] = sum(
                _add_near(finder, copies, (one, sets.index(one)), (other, sets.index(other))) for other in others
            )


def _join_near(finder: NearFinder, links: _Links, pool: _Contents) -> int:
    """Links near contents of the pool. What is linked through others is not compared again."""
    pairs = 0
    for first, second in finder.candidates(0, 0):
        a, b = (pool.number_of[finder.where(index)[1]] for index in (first, second))
        if links.root(a) != links.root(b) and finder.is_near(first, second):
            links.join(a, b)
            pairs += 1
    return pairs


def _add_near(
    finder: NearFinder, copies: dict[int, Copy], one: tuple[_Contents, int], other: tuple[_Contents, int]
) -> int:
    """Adds the rows of one set that are near a row of the other, unless a copy is known already."""
    pairs = 0
    for pair in finder.candidates(one[1], other[1]):
        first, second = pair if finder.where(pair[0])[0] == one[1] else pair[::-1]
        row = finder.where(first)[1]
        if row not in copies and finder.is_near(first, second):
            name = other[0].name(finder.where(second)[1])
            copies.update(dict.fromkeys(one[0].rows[one[0].number_of[row]], Copy(NEAR, name)))
            pairs += 1
    return pairs
