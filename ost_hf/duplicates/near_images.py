"""When two pictures show nearly the same: after noise, another encoding, another size.

First a perceptual hash of 64 bits (Zauner 2010, as ImageHash computes it), which finds candidates and is wrong about
small and simple pictures; then the pixels. Both pictures are shrunk, and the root mean square of their difference is
divided by the contrast (the standard deviation of the brightness) of the one that has more of it: a scan of another 7
on the same black differs little in grey levels and much in contrasts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

# Hashes of the same picture, noisy, re-encoded or resized by a tenth, differ in 0 to 6 bits as a rule and in up to 12
# where there is little to see. So do one in a thousand pairs of different pictures: the pixels decide.
HASH_BITS = 12
# Grey levels. Under less contrast the hash is that of the noise, and is left out.
_FLAT = 8.0
_HASH_SIZE = 8
_SIDE = 32
_SMALL_SIDE = 8
SMALL_PIXELS = _SMALL_SIDE**2
# Grey levels. What has less contrast than this is compared as if it had so much: JPEG's errors do not shrink with it.
_LEAST_CONTRAST = 24.0
# JPEG keeps colour at half the resolution; it counts half.
_WEIGHTS = np.array([1.0, 0.5, 0.5], np.float32)
# The largest standard deviation that values from 0 to 255 can have.
MOST_CONTRAST = 127.5


@dataclass(frozen=True)
class Look:
    """What is kept of a picture: hash (64 bits), shorter side in pixels, 32 x 32 pixels in YCbCr."""

    bits: int
    shorter_side: int
    pixels: np.ndarray

    @property
    def contrast(self) -> float:
        """Standard deviation of the brightness, in grey levels."""
        return float(self.pixels[..., 0].std())

    @property
    def small(self) -> np.ndarray:
        """The brightness of 8 x 8 pixels in one row, in whole grey levels."""
        return _shrink(self.pixels, _SMALL_SIDE)[..., 0].round().astype(np.uint8).ravel()


def look_at(image: Any) -> Look:
    """Looks at a ``PIL.Image``."""
    import imagehash
    from PIL import Image

    pixels = np.asarray(image.convert("YCbCr").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))
    bits = np.packbits(imagehash.phash(image, hash_size=_HASH_SIZE).hash).tobytes()
    look = Look(int.from_bytes(bits, "big"), min(image.size), pixels)
    return replace(look, bits=0) if look.contrast < _FLAT else look


def difference(first: Look, second: Look) -> float:
    """Root mean square difference of two pictures in units of their contrast: 0 for equal ones."""
    # Coarser than the pictures themselves: at their own resolution, what differs most is how they were resized.
    shorter = min(first.shorter_side, second.shorter_side)
    side = _SMALL_SIDE if shorter < _SIDE else 16 if shorter < 2 * _SIDE else _SIDE
    a, b = _shrink(first.pixels, side), _shrink(second.pixels, side)
    contrast = max(a[..., 0].std(), b[..., 0].std(), _LEAST_CONTRAST)
    return float(np.sqrt(np.square((a - b) * _WEIGHTS).sum(axis=-1).mean()) / contrast)


def may_be_near(first: np.ndarray, second: np.ndarray, contrast: np.ndarray, similarity: float) -> np.ndarray:
    """Which of N pairs cannot be told apart by little: no pair that ``is_near`` is left out.

    Means of blocks differ by no more than the pixels in them, and have no more contrast; the rest is rounding.

    Args:
        first: (N, 64) small pictures.
        second: Their counterparts.
        contrast: (N,) the larger contrast of each pair.
        similarity: As for ``is_near``.
    """
    off = np.sqrt(np.square(first.astype(np.float32) - second.astype(np.float32)).mean(axis=1))
    return off <= (1 - similarity) * np.maximum(contrast, _LEAST_CONTRAST) + 1


def is_near(first: list[Look], second: list[Look], similarity: float) -> bool:
    """Whether each picture of one row is near its counterpart in the other, of similarity 1 - ``difference``."""
    return len(first) == len(second) and all(
        (a.bits ^ b.bits).bit_count() <= HASH_BITS and difference(a, b) <= 1 - similarity
        for a, b in zip(first, second, strict=True)
    )


def _shrink(pixels: np.ndarray, side: int) -> np.ndarray:
    block = len(pixels) // side
    return pixels.astype(np.float32).reshape(side, block, side, block, -1).mean(axis=(1, 3))
