"""Pairs of rows that are nearly the same, among a million of them.

Every row becomes a few numbers: a signature of its text, the perceptual hash and 8 x 8 pixels of its first picture.
Rows that share a band of the signature *and* a sixth of the hash are neighbours, so that neither a template text nor a
common background alone makes everything a candidate; what passes the numbers is compared in full
(:mod:`ost_hf.duplicates.near_text`, :mod:`ost_hf.duplicates.near_images`). Some 450 bytes are kept for a row, no text.

``datasketch`` gives signatures and the best number of bands. Its index is not used: at a million rows its sets of keys
take several gigabytes, where sorting by one band after the other takes none.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ost_hf.data.images import open_image
from ost_hf.data.rows import Rows
from ost_hf.duplicates import near_images, near_text
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.duplicates.near_images import Look
from ost_hf.duplicates.near_text import Said, Signer
from ost_hf.parallel import gather_objects, share

logger = logging.getLogger(__name__)

# Parts of the 64 bits of a picture's hash: two hashes that differ in fewer bits than there are parts share one.
_PARTS = 6
# How many neighbours on one side of a row are looked at. They stand in the order of length or brightness, so the
# likely ones come first.
WINDOW = 256
# How far below the threshold a signature's estimate may lie: five standard deviations at 128 permutations.
_SLACK = 0.18
_REMEMBERED_ROWS = 4096
_PAIRS_AT_ONCE = 65536


class NearFinder:
    """Finds near rows in one or more sets of rows.

    Made on every process of a run: each reads its share of the rows, then all find the same.

    Args:
        sets: The rows; the first set is the pool.
        chosen: Which rows of each set are compared: one for each content.
        config: Similarities and seed.
    """

    def __init__(self, sets: list[Rows], chosen: list[list[int]], config: DuplicatesConfig):
        self._sets, self._config = sets, config
        # What is forgotten is read again.
        self._read = lru_cache(_REMEMBERED_ROWS)(self._read_row)
        self._signs = self._sign_all([(number, row) for number, rows in enumerate(chosen) for row in rows])

    def candidates(self, left: int, right: int) -> Iterator[tuple[int, int]]:
        """Pairs worth comparing; their order does not depend on the rows' places in a set.

        Each comes once, but those of rows that have more look-alikes than are compared may come again: a pair that was
        beyond the window in one band can be within it in another.

        Args:
            left: The number of one set.
            right: The number of the other; the same for pairs within a set.
        """
        signs, missed = self._signs, 0
        pictures = signs["images"] > 0
        overflowed = np.zeros((len(pictures), signs["bands"].shape[1], signs["parts"].shape[1]), dtype=bool)
        members = (signs["set"] == left) | (signs["set"] == right)
        for band in range(signs["bands"].shape[1]):
            for part in range(_PARTS if pictures.any() else 1):
                # Text without pictures has one part; text without long turns is equal in all bands or in none.
                active = members & (pictures | (part == 0)) & ((signs["runs"] > 0) | (band == 0))
                key = _mix(signs["bands"][:, band], signs["parts"][:, part])
                for number in {left, right} if left != right else ():
                    active &= np.isin(key, key[active & (signs["set"] == number)])
                for first, second, is_beyond in self._neighbours(key, np.flatnonzero(active)):
                    if is_beyond:
                        missed += len(first)
                        overflowed[first, band, part] = True
                        continue
                    keep = self._is_likely(first, second, band, part, overflowed)
                    if left != right:
                        keep &= signs["set"][first] != signs["set"][second]
                    yield from zip(first[keep].tolist(), second[keep].tolist(), strict=True)
        if missed:
            logger.warning(
                "near duplicates: in %d places a row had more than %d look-alikes, and was not compared with the rest",
                missed,
                WINDOW,
            )

    def is_near(self, first: int, second: int) -> bool:
        """Compares two rows in full."""
        one, other = self._read(*self.where(first)), self._read(*self.where(second))
        if one is None or other is None:
            return False
        return near_text.is_near(one[0], other[0], self._config.text_similarity) and near_images.is_near(
            one[1], other[1], self._config.image_similarity
        )

    def where(self, index: int) -> tuple[int, int]:
        """The number of the set and the row of a candidate."""
        return int(self._signs["set"][index]), int(self._signs["row"][index])

    def _neighbours(self, key: np.ndarray, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
        """Pairs of rows that share a key and whose places are within reach, and whether they are beyond the window."""
        signs = self._signs
        rows = rows[np.lexsort((signs["content"][rows], signs["place"][rows], key[rows]))]
        key, place, reach = key[rows], signs["place"][rows], signs["reach"][rows]
        left = np.arange(len(rows))
        for offset in range(1, WINDOW + 2):
            left = left[left + offset < len(rows)]
            right = left + offset
            left = left[(key[left] == key[right]) & (place[right] <= reach[left])]
            if not len(left):
                return
            yield rows[left], rows[left + offset], offset > WINDOW

    def _is_likely(
        self, first: np.ndarray, second: np.ndarray, band: int, part: int, overflowed: np.ndarray
    ) -> np.ndarray:
        """Which pairs have signatures near enough, and were not shown by an earlier band or part.

        Args:
            first: Rows ``[P]`` that come first in every bucket that they share with ``second``.
            second: Rows ``[P]``.
            band: Of the bucket.
            part: Of the bucket.
            overflowed: ``[N, bands, parts]``: rows that had more look-alikes behind them in a bucket than were shown.
        """
        signs = self._signs
        likely = _different_bits(signs["bits"][first], signs["bits"][second]) <= near_images.HASH_BITS
        same_bands = signs["bands"][first, :band] == signs["bands"][second, :band]
        same_parts = signs["parts"][first, :part] == signs["parts"][second, :part]
        likely &= ~(same_bands & ~overflowed[first, :band, part]).any(axis=1)
        likely &= ~(same_parts & ~overflowed[first, band, :part]).any(axis=1)
        least = self._config.text_similarity - _SLACK
        for start in range(0, len(first), _PAIRS_AT_ONCE):
            pairs = np.flatnonzero(likely[start : start + _PAIRS_AT_ONCE]) + start
            a, b = first[pairs], second[pairs]
            equal = signs["low_bytes"][a] == signs["low_bytes"][b]
            # Zeros for texts without pictures, which are always alike.
            small, contrast = signs["small"], signs["contrast"]
            alike = near_images.may_be_near(
                small[a], small[b], np.maximum(contrast[a], contrast[b]), self._config.image_similarity
            )
            likely[pairs] = (equal.mean(axis=1) >= least) & alike
        return likely

    def _sign_all(self, places: list[tuple[int, int]]) -> dict[str, np.ndarray]:
        """Signs of the rows that can be compared: N entries in each array."""
        mine = share(list(range(len(places))))
        signs = _Signs(len(mine), Signer(self._config.text_similarity, self._config.seed))
        for index in mine:
            number, row = places[index]
            read = self._read_row(number, row)
            if read is not None:
                signs.add(index, number, row, self._sets[number].content_hashes[row], *read)
        gathered = gather_objects([signs.arrays()])
        together = {name: np.concatenate([part[name] for part in gathered]) for name in gathered[0]}
        order = np.argsort(together["index"])
        return _with_places({name: values[order] for name, values in together.items()}, self._config)

    def _read_row(self, number: int, row: int) -> tuple[Said, list[Look]] | None:
        """A row made comparable; ``None`` for one that is malformed or has an unreadable picture."""
        rows = self._sets[number]
        try:
            example = rows.stored(row)
            looks = [near_images.look_at(open_image(image, rows.places)) for image in example.images]
            return near_text.read_row(example, self._config.same_numbers), looks
        except Exception:  # whatever it is, encoding meets it again and says so in the row's status
            return None


class _Signs:
    """Fills the arrays row by row."""

    def __init__(self, count: int, signer: Signer):
        self._signer, self._filled = signer, 0
        numbers = ("index", "set", "row", "runs", "images")
        self._arrays: dict[str, np.ndarray] = {
            **{name: np.zeros(count, np.int64) for name in numbers},
            "content": np.zeros(count, np.uint64),
            "bits": np.zeros(count, np.uint64),
            "small": np.zeros((count, near_images.SMALL_PIXELS), np.uint8),
            "contrast": np.zeros(count, np.float32),
            "bands": np.zeros((count, signer.bands), np.uint64),
            "low_bytes": np.zeros((count, near_text.PERMUTATIONS), np.uint8),
        }

    def add(self, index: int, number: int, row: int, content_hash: str, said: Said, looks: list[Look]) -> None:
        """Adds one row."""
        bands, low_bytes = self._signer.sign(said)
        values: dict[str, Any] = {
            **{"index": index, "set": number, "row": row, "runs": said.size, "images": len(looks)},
            "content": int(content_hash[:16], 16),
            **{"bands": bands, "low_bytes": low_bytes},
        }
        if looks:
            values |= {"bits": looks[0].bits, "small": looks[0].small, "contrast": looks[0].contrast}
        for name, value in values.items():
            self._arrays[name][self._filled] = value
        self._filled += 1

    def arrays(self) -> dict[str, np.ndarray]:
        """What was added."""
        return {name: values[: self._filled] for name, values in self._arrays.items()}


def _with_places(signs: dict[str, np.ndarray], config: DuplicatesConfig) -> dict[str, np.ndarray]:
    """Adds what neighbours are sorted by (near rows are within ``reach``), and the parts of the pictures' hashes.

    The mean of a picture moves by no more than the pixels do, the length of a text by no more than its runs.
    """
    pictures = signs["images"] > 0
    lengths = np.log(np.maximum(signs["runs"], 1))
    place = np.where(pictures, signs["small"].mean(axis=1), lengths)
    # One grey level for rounding.
    brighter = (1 - config.image_similarity) * near_images.MOST_CONTRAST + 1
    far = np.where(pictures, brighter, -math.log(config.text_similarity) + 1e-6)
    bits = np.unpackbits(signs["bits"].astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    parts = np.zeros((len(bits), _PARTS), np.uint64)
    for part in range(_PARTS):
        # Every sixth bit: neighbouring bits of the hash speak of neighbouring frequencies.
        for bit in bits[:, part::_PARTS].T:
            parts[:, part] = parts[:, part] * np.uint64(2) + bit
    return signs | {"place": place, "reach": place + far, "parts": parts}


def _mix(band: np.ndarray, part: np.ndarray) -> np.ndarray:
    """One key of two; overflow is what a hash wants."""
    return (band ^ (part * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xBF58476D1CE4E5B9)


def _different_bits(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.unpackbits((first ^ second).view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
