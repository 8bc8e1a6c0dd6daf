"""When two pictures show nearly the same: after noise, another encoding, another size.

First a perceptual hash of 64 bits (Zauner 2010, as ImageHash computes it), which finds candidates and is wrong about
small and simple pictures; then the pixels. Both pictures are shrunk, and the root mean square of their difference is
divided by the contrast (the standard deviation of the brightness) of the one that has more of it: a scan of another 7
on the same black differs little in grey levels and much in contrasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# Hashes of the same picture, noisy, re-encoded or resized by a tenth, differ in 0 to 6 bits as a rule; one in a
# thousand pairs of different pictures in 12 or fewer.
HASH_BITS = 8
_HASH_SIZE = 8
_SIDE = 32
# Grey levels. What has less contrast than this is compared as if it had so much: JPEG's errors do not shrink with it.
_LEAST_CONTRAST = 32.0
# JPEG keeps colour at half the resolution; it counts half.
_WEIGHTS = np.array([1.0, 0.5, 0.5], np.float32)
# No mean of a picture lies further than this from its pixels: the largest standard deviation of 0 to 255.
MOST_CONTRAST = 127.5


@dataclass(frozen=True)
class Look:
    """What is kept of a picture: hash (64 bits), mean brightness, shorter side in pixels, 32 x 32 pixels in YCbCr."""

    bits: int
    brightness: float
    shorter_side: int
    pixels: np.ndarray


def look_at(image: Any) -> Look:
    """Looks at a ``PIL.Image``."""
    import imagehash
    from PIL import Image

    bits = int.from_bytes(np.packbits(imagehash.phash(image, hash_size=_HASH_SIZE).hash).tobytes(), "big")
    pixels = np.asarray(image.convert("YCbCr").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))
    return Look(bits, float(pixels[..., 0].mean()), min(image.size), pixels)


def difference(first: Look, second: Look) -> float:
    """Root mean square difference of two pictures in units of their contrast: 0 for equal ones."""
    # Coarser than the pictures themselves: at their own resolution, what differs most is how they were resized.
    shorter = min(first.shorter_side, second.shorter_side)
    side = 8 if shorter < _SIDE else 16 if shorter < 2 * _SIDE else _SIDE
    a, b = _shrink(first.pixels, side), _shrink(second.pixels, side)
    contrast = max(a[..., 0].std(), b[..., 0].std(), _LEAST_CONTRAST)
    return float(np.sqrt(np.square((a - b) * _WEIGHTS).sum(axis=-1).mean()) / contrast)


def is_near(first: list[Look], second: list[Look], similarity: float) -> bool:
    """Whether each picture of one row is near its counterpart in the other, of similarity 1 - ``difference``."""
    return len(first) == len(second) and all(
        (a.bits ^ b.bits).bit_count() <= HASH_BITS and difference(a, b) <= 1 - similarity
        for a, b in zip(first, second, strict=True)
    )


def _shrink(pixels: np.ndarray, side: int) -> np.ndarray:
    block = len(pixels) // side
    return pixels.astype(np.float32).reshape(side, block, side, block, -1).mean(axis=(1, 3))
