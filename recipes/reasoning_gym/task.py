"""Four small tasks of reasoning-gym in short words, each answered with a chain of thought.

reasoning-gym makes the problems; question and chain are worded here from its metadata, short enough for a model of half
a million parameters. Everything is made by seeded code; the problems behind the pretraining, pool, anchor and test rows
are disjoint. Tasks and base were chosen on test rows that are now in ``pool``, ``anchors`` and ``development``.
"""

from __future__ import annotations

import hashlib
import random
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import reasoning_gym

# Shares of all problems; no problem is in two of them.
SHARES = {"pretraining": 0.4, "test": 0.1, "pool": 0.4, "anchors": 0.05, "development": 0.05}

# So many draws in a row without a new problem mean that a part is used up.
_PATIENCE = 20_000

_JUNK = "spell sort first % is backward divisor sorted answer so the a e n r s t 0 1 2 3 4 5 6 7 8 9 + - = ."
JUNK_WORDS = _JUNK.split(" ")

Row = dict[str, Any]
Given = tuple[Any, ...]


@dataclass(frozen=True)
class Problem:
    """A problem of reasoning-gym: its entry (which its scorer wants) and what the question gives."""

    task: str
    given: Given
    entry: dict[str, Any]

    @property
    def question(self) -> str:
        """The question in short words."""
        return TASKS[self.task].question.format(*self.given)


@dataclass(frozen=True)
class Task:
    """How a task of reasoning-gym is made, worded, solved and spoilt.

    ``solve`` returns the chain up to where the result is first written, and the result; given a generator, it makes
    one slip on the way. ``spoil`` returns a wrong result that looks like a right one.
    """

    ranges: dict[str, Any]
    question: str
    read: Callable[[dict[str, Any]], Given]
    solve: Callable[[Given, random.Random | None], tuple[str, str]]
    spoil: Callable[[str, random.Random], str]


def _other(generator: random.Random, values: Sequence[Any], *known: Any) -> Any:
    return generator.choice([value for value in values if value not in known])


def _add(given: Given, slip: random.Random | None) -> tuple[str, str]:
    a, sign, b = int(given[0]), given[1], int(given[2])
    factor = 1 if sign == "+" else -1
    tens, ones = a - a % 10 + factor * (b - b % 10), a % 10 + factor * (b % 10)
    if slip:
        ones += _other(slip, range(-3, 4), 0)
    steps = f"{a - a % 10}{sign}{b - b % 10}={tens}. {a % 10}{sign}{b % 10}={ones}. {tens}+{ones} is"
    return steps, str(tens + ones)


def _spell(given: Given, slip: random.Random | None) -> tuple[str, str]:
    letters = list(given[0])
    if slip:
        place = slip.randrange(len(letters))
        letters[place] = _other(slip, string.ascii_lowercase, letters[place])
    return f"{' '.join(letters)}. backward", "".join(reversed(letters))


def _divide(given: Given, slip: random.Random | None) -> tuple[str, str]:
    """Euclid's algorithm; the slip is in its first remainder."""
    a, b = given
    steps = []
    while b:
        rest = a % b
        if slip and not steps:
            rest = _other(slip, range(b), rest)
        steps.append(f"{a}%{b}={rest}. ")
        a, b = b, rest
    return f"{''.join(steps)}divisor", str(a)


def _sort(given: Given, slip: random.Random | None) -> tuple[str, str]:
    """Takes one number after the other; a slip reads one wrongly."""
    numbers, direction = list(given[:-1]), given[-1]
    if slip:
        place = slip.randrange(len(numbers))
        # Far off: reasoning-gym's scorer forgives a difference of one.
        near = range(numbers[place] - 9, numbers[place] + 10)
        numbers[place] = _other(slip, range(10, 100), *near, *numbers)
    numbers.sort(reverse=direction == "descending")
    return f"first {numbers[0]}. sorted", " ".join(map(str, numbers))


def _shuffled(parts: list[str], generator: random.Random) -> list[str]:
    """Another order of ``parts``, which must not all be the same."""
    order = list(parts)
    while order == parts:
        generator.shuffle(order)
    return order


TASKS = {
    "chain_sum": Task(
        {"min_terms": 2, "max_terms": 2, "min_digits": 2, "max_digits": 2},
        "What is {}{}{}?",
        lambda metadata: tuple(metadata["expression"].split()),
        _add,
        lambda result, generator: str(int(result) + _other(generator, range(-12, 13), 0)),
    ),
    "spell_backward": Task(
        {"min_word_len": 4, "max_word_len": 4},
        "Spell {} backward.",
        lambda metadata: (metadata["word"].lower(),),
        _spell,
        lambda result, generator: "".join(_shuffled(list(result), generator)),
    ),
    "gcd": Task(
        {"min_value": 10, "max_value": 60},
        "Greatest common divisor of {} and {}?",
        lambda metadata: tuple(metadata["numbers"]),
        _divide,
        lambda result, generator: str(_other(generator, range(1, 13), int(result))),
    ),
    "number_sorting": Task(
        {"min_numbers": 3, "max_numbers": 3, "min_decimals": 0, "max_decimals": 0, "min_value": 10, "max_value": 99},
        "Sort {} {} {} {}.",
        lambda metadata: (*(int(float(number)) for number in metadata["original_numbers"]), metadata["direction"]),
        _sort,
        lambda result, generator: " ".join(_shuffled(result.split(), generator)),
    ),
}


def part_of(question: str) -> str:
    """The part that a question belongs to, by a hash of its words in alphabetical order.

    The same numbers in another order, which have the same answer, are thus in the same part.
    """
    digest = hashlib.sha256(" ".join(sorted(re.findall(r"\w+", question))).encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    for name, share in SHARES.items():
        if place < share:
            return name
        place -= share
    return list(SHARES)[-1]  # the shares' sum may be a little below one


def problems(count: int, part: str, seed: int, tasks: Sequence[str] = tuple(TASKS)) -> list[Problem]:
    """Problems of one part with different questions, tasks as they come.

    Raises:
        ValueError: If the part is unknown or has not so many problems.
    """
    if part not in SHARES:
        raise ValueError(f"part must be one of {', '.join(SHARES)}, got {part!r}")
    generator = random.Random(seed)
    # An entry of reasoning-gym is a function of seed + index: nearby seeds would give the same entries.
    made = {name: reasoning_gym.create_dataset(name, seed=seed * 10**6, **TASKS[name].ranges) for name in tasks}
    places = dict.fromkeys(tasks, 0)
    seen: set[str] = set()
    found = []
    for _ in range(count):
        name = generator.choice(tasks)
        for place in range(places[name], places[name] + _PATIENCE):
            entry = made[name][place]
            problem = Problem(name, TASKS[name].read(entry["metadata"]), entry)
            if _usable(problem) and problem.question not in seen and part_of(problem.question) == part:
                break
        else:
            raise ValueError(f"{part} has fewer different problems of {name} than are asked for; ask for fewer rows")
        places[name] = place + 1
        seen.add(problem.question)
        found.append(problem)
    return found


def _usable(problem: Problem) -> bool:
    """Whether a shuffled result can be wrong: letters that are not all the same, numbers that all differ."""
    if problem.task == "spell_backward":
        return len(set(problem.given[0])) > 1
    return problem.task != "number_sorting" or len(set(problem.given)) == len(problem.given)


def chain_of_thought(task: str, steps: str, result: str) -> str:
    """The worded solution; a word is spelled out before it is answered."""
    shown = " ".join(result) if task == "spell_backward" else result
    return f"{steps} {shown}. answer: {result}"


def clean_row(problem: Problem) -> Row:
    """The correct row of a problem; the right answer stands in ``solution`` whatever is done to the row later."""
    steps, result = TASKS[problem.task].solve(problem.given, None)
    return {
        "question": problem.question,
        "answer": chain_of_thought(problem.task, steps, result),
        "solution": result,
        "task": problem.task,
        "kind": "clean",
        "is_clean": 1,
    }


def clean_rows(count: int, part: str, seed: int, tasks: Sequence[str] = tuple(TASKS)) -> list[Row]:
    """Correct rows of a part; see ``problems``."""
    return [clean_row(problem) for problem in problems(count, part, seed, tasks)]


def _wrong_result(row: Row, problem: Problem, rows: list[Row], generator: random.Random) -> str:
    steps, result = TASKS[problem.task].solve(problem.given, None)
    return chain_of_thought(problem.task, steps, TASKS[problem.task].spoil(result, generator))


def _slip(row: Row, problem: Problem, rows: list[Row], generator: random.Random) -> str:
    """A slip on the way, from which the chain goes on rightly to a wrong result."""
    result = row["solution"]
    while result == row["solution"]:
        steps, result = TASKS[problem.task].solve(problem.given, generator)
    return chain_of_thought(problem.task, steps, result)


def _junk(row: Row, problem: Problem, rows: list[Row], generator: random.Random) -> str:
    return " ".join(generator.choice(JUNK_WORDS) for _ in range(14))


def _wrong_bare_answer(row: Row, problem: Problem, rows: list[Row], generator: random.Random) -> str:
    return f"answer: {TASKS[problem.task].spoil(row['solution'], generator)}"


def _other_answer(row: Row, problem: Problem, rows: list[Row], generator: random.Random) -> str:
    """The right solution of another problem of the task, with another result."""
    others = [other for other in rows if other["task"] == row["task"] and other["solution"] != row["solution"]]
    if not others:
        raise ValueError(f"no other row of {row['task']} to take an answer from; ask for more rows")
    return generator.choice(others)["answer"]


CORRUPTIONS = {
    "wrong_result": _wrong_result,
    "slip": _slip,
    "junk": _junk,
    "wrong_bare_answer": _wrong_bare_answer,
    "other_answer": _other_answer,
}


def pool_rows(
    count: int,
    seed: int,
    noise: float = 0.5,
    tasks: Sequence[str] = tuple(TASKS),
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
) -> list[Row]:
    """Pool rows of which a share is corrupted in one of the named ways; ``kind`` says which."""
    found = problems(count, "pool", seed + 1, tasks)
    clean = [clean_row(problem) for problem in found]
    generator = random.Random(seed)
    rows = []
    for problem, row in zip(found, clean, strict=True):
        if generator.random() < noise:
            kind = generator.choice(corruptions)
            row = {**row, "answer": CORRUPTIONS[kind](row, problem, clean, generator), "kind": kind, "is_clean": 0}
        rows.append(row)
    return rows


def as_dataset(rows: list[Row]) -> datasets.Dataset:
    """The rows in the question/answer layout."""
    columns = {key: datasets.Value("int32" if key in ("is_clean", "is_fit") else "string") for key in rows[0]}
    return datasets.Dataset.from_list(rows, features=datasets.Features(columns))
