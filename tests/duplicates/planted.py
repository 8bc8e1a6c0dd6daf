"""Rows that say nearly the same, and changes that leave a text or a picture nearly the same."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
from PIL import Image

from ost_hf.data.rows import Rows
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.duplicates.find import find_duplicates

NEAR = DuplicatesConfig(near=True)
WORDS = "river stone window lantern copper meadow winter ladder engine basket copper thread harbor violet summit candle"
Record = dict[str, Any]
Change = Callable[[Any], Any]


def story(seed: int, length: int = 60) -> str:
    generator = random.Random(seed)
    return " ".join(generator.choice(WORDS.split()) + generator.choice(["", "s", "ing"]) for _ in range(length))


def text_rows(*pairs: tuple[str, str]) -> Rows:
    return Rows(datasets.Dataset.from_list([{"question": question, "answer": answer} for question, answer in pairs]))


def groups(rows: Rows, config: DuplicatesConfig = NEAR) -> list[list[int]]:
    return find_duplicates(rows, config).groups


def replaced(text: str, place: int, word: str = "otherwise") -> str:
    words = text.split()
    words[place] = word
    return " ".join(words)


def noisy(picture: Any) -> Any:
    pixels = np.asarray(picture).astype(int)
    noise = np.random.RandomState(0).randint(-4, 5, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def as_jpeg(picture: Any) -> Any:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return Image.open(buffer).convert("RGB")


def resized(by: float) -> Change:
    return lambda picture: picture.resize((round(picture.width * by), round(picture.height * by)), Image.BICUBIC)


CHANGES: dict[str, Change] = {
    "noise": noisy,
    "jpeg": as_jpeg,
    "larger": resized(1.1),
    "smaller": resized(0.9),
    "both": lambda picture: noisy(resized(1.06)(picture)),
}


def photo(seed: int, size: tuple[int, int] = (160, 120)) -> Any:
    """Soft blobs of colour, as photographs have."""
    pixels = np.random.RandomState(seed).randint(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize(size, Image.BICUBIC)


def picture_rows(*triples: tuple[Any, str, str]) -> Rows:
    """Rows of one picture or a list of them, a question and an answer."""
    records = [
        {"images": images if isinstance(images, list) else [images], "question": question, "answer": answer}
        for images, question, answer in triples
    ]
    features = datasets.Features(
        {
            "images": datasets.List(datasets.Image()),
            "question": datasets.Value("string"),
            "answer": datasets.Value("string"),
        }
    )
    return Rows(datasets.Dataset.from_list(records, features=features))
