"""How many planted duplicates are found, how many rows are wrongly taken for one, and what it costs.

``python scripts/measure_duplicates.py`` prints tables for ``docs/duplicates.md``.
"""

from __future__ import annotations

import argparse
import io
import itertools
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "handwritten_arithmetic"))

import task

from ost_hf.data.config import DatasetConfig
from ost_hf.data.rows import Rows
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.duplicates.find import find_duplicates

Row = dict[str, Any]
Change = Callable[[Any, random.Random], Any]

NEAR = DuplicatesConfig(near=True)
VOCABULARY = ["".join(letters) for letters in itertools.product("bdfklmnprst", "aeiou", "bdfklmnprst", "aeiou")]


def noise(levels: int) -> Change:
    """Uniform noise of so many grey levels to either side."""

    def change(picture: Any, generator: random.Random) -> Any:
        pixels = np.asarray(picture).astype(int)
        drawn = np.random.RandomState(generator.randrange(2**32)).randint(-levels, levels + 1, pixels.shape)
        return Image.fromarray(np.clip(pixels + drawn, 0, 255).astype(np.uint8))

    return change


def jpeg(quality: int) -> Change:
    """Encoded and decoded again."""

    def change(picture: Any, generator: random.Random) -> Any:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return change


def resize(by: float, filter_: Any = Image.Resampling.BICUBIC) -> Change:
    """Both sides times ``by``."""
    return lambda picture, generator: picture.resize((round(picture.width * by), round(picture.height * by)), filter_)


PICTURE_CHANGES: dict[str, Change] = {
    "noise of 4 grey levels": noise(4),
    "noise of 8": noise(8),
    "JPEG, quality 85": jpeg(85),
    "JPEG, quality 50": jpeg(50),
    "smaller by a tenth": resize(0.9),
    "larger by a tenth": resize(1.1),
    "larger by a tenth, bilinear, then noise of 4": lambda picture, generator: noise(4)(
        resize(1.1, Image.Resampling.BILINEAR)(picture, generator), generator
    ),
    "half the size": resize(0.5),
    "larger by a tenth, nearest pixel": resize(1.1, Image.Resampling.NEAREST),
}


def replace_words(share: float) -> Change:
    """A share of the words, at least one, replaced by others."""

    def change(text: str, generator: random.Random) -> str:
        words = text.split()
        for place in generator.sample(range(len(words)), max(1, round(share * len(words)))):
            words[place] = generator.choice(VOCABULARY)
        return " ".join(words)

    return change


TEXT_CHANGES: dict[str, Change] = {
    "capitals and punctuation": lambda text, generator: text.upper().replace(" ", ", ") + "!",
    "one word replaced": replace_words(0),
    "3 % of the words replaced": replace_words(0.03),
    "5 % replaced": replace_words(0.05),
    "10 % replaced": replace_words(0.1),
    "half replaced": replace_words(0.5),
    "the last tenth cut off": lambda text, generator: " ".join(text.split()[: round(0.9 * len(text.split()))]),
}


def dataset_of(rows: list[Row]) -> Rows:
    """Rows with pictures or without."""
    features = {"question": datasets.Value("string"), "answer": datasets.Value("string")}
    if "image" in rows[0]:
        features["image"] = datasets.Image()
    records = [{name: row[name] for name in features} for row in rows]
    return Rows(datasets.Dataset.from_list(records, features=datasets.Features(features)))


def measure(rows: list[Row], planted: list[tuple[int, Row]]) -> tuple[float, int]:
    """Adds changed copies to a pool and looks for duplicates.

    Args:
        rows: The pool; equal values of ``same`` mark rows that say the same.
        planted: The row that is copied, and its changed copy.

    Returns:
        The share of copies found, and the number of pairs in a group that are not the same.
    """
    names = [row["same"] for row in [*rows, *(copy for _, copy in planted)]]
    groups = find_duplicates(dataset_of([*rows, *(copy for _, copy in planted)]), NEAR).groups
    group_of = {row: number for number, group in enumerate(groups) for row in group}
    hits = [
        group_of.get(source, -1) == group_of.get(len(rows) + number, -2) for number, (source, _) in enumerate(planted)
    ]
    false = sum(names[a] != names[b] for group in groups for a, b in itertools.combinations(group, 2))
    return sum(hits) / len(hits), false


def table(title: str, rows: list[Row], column: str, changes: dict[str, Change], count: int, seed: int) -> None:
    """Prints what is found after each change."""
    print(f"\n{title}: {len(rows):,} rows, {min(count, len(rows))} of them copied\n")
    print("| the copy's change | found | wrong pairs |\n|---|---|---|")
    for name, change in changes.items():
        generator = random.Random(seed)
        chosen = generator.sample(range(len(rows)), min(count, len(rows)))
        planted = [(row, {**rows[row], column: change(rows[row][column], generator)}) for row in chosen]
        found, false = measure(rows, planted)
        print(f"| {name} | {found:.1%} | {false} |", flush=True)


def demo_rows(count: int, seed: int) -> list[Row]:
    """Clean rows of the handwritten arithmetic."""
    rows = task.clean_rows(count, "pool", seed)
    for row in rows:
        row["image"] = task.picture(row["left_scan"], row["right_scan"])
        row["same"] = (row["left_scan"], row["right_scan"], row["question"])
    return rows


def tiles(side: int = 80) -> list[Row]:
    """Tiles of scikit-learn's two photographs, all under the same words."""
    pictures = [
        image[top : top + side, left : left + side]
        for image in load_sample_images().images
        for top in range(0, image.shape[0] - side + 1, side)
        for left in range(0, image.shape[1] - side + 1, side)
    ]
    return [
        {"image": Image.fromarray(pixels), "question": "What is shown?", "answer": "A part.", "same": number}
        for number, pixels in enumerate(pictures)
    ]


def texts(count: int, words: int, seed: int) -> list[Row]:
    """Random words, all under the same question."""
    generator = random.Random(seed)
    return [
        {"question": "What then?", "answer": " ".join(generator.choices(VOCABULARY, k=words)), "same": number}
        for number in range(count)
    ]


def look_alikes(seed: int, count: int) -> None:
    """Pairs of demo pictures that share one scan, the other being another scan of the same digit."""
    labels, scans = task._digits()[1], task.scans_of("pool")
    generator = random.Random(seed)
    near = 0
    for _ in range(count):
        left, right = generator.sample(scans, 2)
        other = generator.choice([scan for scan in scans if labels[scan] == labels[right] and scan != right])
        pair = [
            {"image": task.picture(left, scan), "question": "The sum?", "answer": "answer"} for scan in (right, other)
        ]
        near += bool(find_duplicates(dataset_of(pair), NEAR).groups)
    print(f"\nSame words, one scan the same, the other another scan of the same digit: {near} of {count} pairs near")


def cost(rows: Rows, name: str) -> None:
    """Prints time and memory of one search, in a process that holds nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        rows.dataset.save_to_disk(folder)
        process = get_context("spawn").Process(target=search, args=(folder, name))
        process.start()
        process.join()


def search(folder: str, name: str) -> None:
    """Searches the rows saved in a folder and prints a line of the table."""
    rows = Rows.load(DatasetConfig(path=folder))
    rows.content_hashes  # noqa: B018  they are there already when duplicates are looked for
    before, start = peak_megabytes(), time.perf_counter()
    find_duplicates(rows, NEAR)
    seconds = time.perf_counter() - start
    print(
        f"| {name} | {len(rows):,} | {seconds:.1f} | {1e3 * seconds / len(rows):.2f} | {before} | {peak_megabytes()} |",
        flush=True,
    )


def peak_megabytes() -> int:
    """The most memory this process has held, on Linux."""
    # Not getrusage: after a fork it begins with what the parent held.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) // 1024 if found else 0


def main() -> None:
    """Prints everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3000, help="rows of each pool")
    parser.add_argument("--planted", type=int, default=300, help="copies planted for each change")
    parser.add_argument("--text_rows", type=int, default=1_000_000, help="texts of 60 words whose search is timed")
    parser.add_argument("--picture_rows", type=int, default=20_000, help="pictures whose search is timed")
    parser.add_argument("--seed", type=int, default=1, help="seed of rows and changes")
    args = parser.parse_args()
    demo = demo_rows(args.rows, args.seed)
    table("Handwritten arithmetic", demo, "image", PICTURE_CHANGES, args.planted, args.seed)
    look_alikes(args.seed, args.planted)
    table("Tiles of photographs", tiles(), "image", PICTURE_CHANGES, args.planted, args.seed)
    for words in (60, 200):
        rows = texts(args.rows, words, args.seed)
        table(f"Texts of {words} words", rows, "answer", TEXT_CHANGES, args.planted, args.seed)
    print("\n| search | rows | seconds | ms a row | MB held before | MB at most |\n|---|---|---|---|---|---|")
    same = [{**row, "question": "What?", "answer": "That."} for row in demo_rows(args.picture_rows, args.seed)]
    cost(dataset_of(same), "pictures under the same words")
    cost(dataset_of(texts(args.text_rows, 60, args.seed)), "texts of 60 words")


if __name__ == "__main__":
    main()
