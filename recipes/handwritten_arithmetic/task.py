"""Handwritten arithmetic: two real digits in one image, an operation in words, a chain of thought.

The digits are scikit-learn's 1,797 scans of 8 x 8 pixels. Everything is made by seeded code; the scans
behind the pretraining, pool, anchor and test rows are disjoint.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import datasets
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

# Shares of the 1,797 scans; no scan is in two of them.
SCANS = {"pretraining": 500, "pool": 700, "anchors": 200, "test": 397}

OPERATIONS: dict[str, tuple[str, str, Callable[[int, int], int]]] = {
    "sum": ("What is the sum of the two digits?", "+", lambda a, b: a + b),
    "difference": ("What is the difference of the two digits?", "-", lambda a, b: abs(a - b)),
    "maximum": ("Which of the two digits is larger?", ">", max),
    "product": ("What is the product of the two digits?", "*", lambda a, b: a * b),
    # For studies alone: no default was chosen on a pool that holds it.
    "double": ("What is twice the left digit plus the right digit?", "* 2 +", lambda a, b: 2 * a + b),
}
# What the demo asks, and what settings were chosen on.
DEMO_OPERATIONS = ("sum", "difference", "maximum", "product")

_JUNK = "left right is so the then answer sum product 0 1 2 3 4 5 6 7 8 9 + - * = . ,"
JUNK_WORDS = _JUNK.split(" ")

Row = dict[str, Any]


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    return (data.images * (255 / 16)).astype(np.uint8), data.target


@cache
def scans_of(part: str) -> tuple[int, ...]:
    """The numbers of the scans that belong to ``pretraining``, ``pool``, ``anchors`` or ``test``."""
    order = list(range(len(_digits()[1])))
    random.Random(20260507).shuffle(order)
    start = 0
    for name, count in SCANS.items():
        if name == part:
            return tuple(order[start : start + count])
        start += count
    raise ValueError(f"part must be one of {', '.join(SCANS)}, got {part!r}")


def picture(left: int, right: int, speckle: int | None = None) -> Image.Image:
    """Two scans side by side, doubled to 32 x 16 pixels; ``speckle`` seeds noise of a few grey levels."""
    images = _digits()[0]
    pixels = np.kron(np.hstack([images[left], images[right]]), np.ones((2, 2), np.uint8))
    if speckle is not None:
        noise = np.random.default_rng(speckle).normal(0, 4, pixels.shape)
        pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert("RGB")


def chain_of_thought(operation: str, a: int, b: int, result: int) -> str:
    """The worded solution."""
    sign = OPERATIONS[operation][1]
    return f"left {a}, right {b}. {a} {sign} {b} = {result}. answer: {result}"


def clean_rows(count: int, part: str, seed: int, operations: Sequence[str] = DEMO_OPERATIONS) -> list[Row]:
    """Correct rows; the right answer stands in ``solution`` whatever is done to the row later."""
    generator = random.Random(seed)
    scans, labels = scans_of(part), _digits()[1]
    rows = []
    for _ in range(count):
        left, right = generator.choice(scans), generator.choice(scans)
        operation = generator.choice(operations)
        a, b = int(labels[left]), int(labels[right])
        question, _, compute = OPERATIONS[operation]
        result = compute(a, b)
        rows.append(
            {
                "left_scan": left,
                "right_scan": right,
                "operation": operation,
                "question": question,
                "answer": chain_of_thought(operation, a, b, result),
                "solution": str(result),
                "kind": "clean",
            }
        )
    return rows


def _other(generator: random.Random, values: range, known: int) -> int:
    return generator.choice([value for value in values if value != known])


def _wrong_arithmetic(row: Row, a: int, b: int, result: int, generator: random.Random) -> None:
    row["answer"] = chain_of_thought(row["operation"], a, b, _other(generator, range(19), result))


def _wrong_perception(row: Row, a: int, b: int, result: int, generator: random.Random) -> None:
    seen = _other(generator, range(10), a)
    row["answer"] = chain_of_thought(row["operation"], seen, b, OPERATIONS[row["operation"]][2](seen, b))


def _swapped_image(row: Row, a: int, b: int, result: int, generator: random.Random) -> None:
    labels = _digits()[1]
    while (int(labels[row["left_scan"]]), int(labels[row["right_scan"]])) == (a, b):
        row["left_scan"], row["right_scan"] = generator.choice(scans_of("pool")), generator.choice(scans_of("pool"))


def _junk(row: Row, a: int, b: int, result: int, generator: random.Random) -> None:
    row["answer"] = " ".join(generator.choice(JUNK_WORDS) for _ in range(14))


def _wrong_bare_answer(row: Row, a: int, b: int, result: int, generator: random.Random) -> None:
    row["answer"] = f"answer: {_other(generator, range(19), result)}"


def _wrong_operation(row: Row, a: int, b: int, result: int, generator: random.Random) -> None:
    """A right solution of another question; of one with another result where there is one (two zeros have none)."""
    others = [name for name in OPERATIONS if name != row["operation"]]
    differing = [name for name in others if OPERATIONS[name][2](a, b) != result]
    name = generator.choice(differing or others)
    row["answer"] = chain_of_thought(name, a, b, OPERATIONS[name][2](a, b))


CORRUPTIONS = {
    "wrong_arithmetic": _wrong_arithmetic,
    "wrong_perception": _wrong_perception,
    "swapped_image": _swapped_image,
    "junk": _junk,
    "wrong_bare_answer": _wrong_bare_answer,
    # For studies alone, as the fifth operation.
    "wrong_operation": _wrong_operation,
}
DEMO_CORRUPTIONS = ("wrong_arithmetic", "wrong_perception", "swapped_image", "junk", "wrong_bare_answer")


def pool_rows(
    count: int,
    seed: int,
    noise: float = 0.5,
    operations: Sequence[str] = DEMO_OPERATIONS,
    corruptions: Sequence[str] = DEMO_CORRUPTIONS,
) -> list[Row]:
    """Pool rows of which a share is corrupted in one of the named ways; ``kind`` says which."""
    rows = clean_rows(count, "pool", seed + 1, operations)
    corrupt(rows, noise, corruptions, random.Random(seed))
    return rows


def corrupt(rows: list[Row], noise: float, corruptions: Sequence[str], generator: random.Random) -> None:
    """Corrupts each row with probability ``noise``, in place, in a way drawn from ``corruptions``."""
    labels = _digits()[1]
    for row in rows:
        if generator.random() < noise:
            row["kind"] = generator.choice(corruptions)
            a, b = int(labels[row["left_scan"]]), int(labels[row["right_scan"]])
            CORRUPTIONS[row["kind"]](row, a, b, int(row["solution"]), generator)


def as_dataset(rows: list[Row]) -> datasets.Dataset:
    """The rows with their pictures, in the question/answer layout."""
    records = [{"image": picture(row["left_scan"], row["right_scan"], row.get("speckle")), **row} for row in rows]
    columns: dict[str, Any] = {key: datasets.Value("string") for key in records[0]}
    numbers = ("left_scan", "right_scan", "speckle", "is_clean", "is_fit", "copy_group")
    whole = [key for key in records[0] if key in numbers]
    columns |= {"image": datasets.Image(), **{key: datasets.Value("int32") for key in whole}}
    return datasets.Dataset.from_list(records, features=datasets.Features(columns))
