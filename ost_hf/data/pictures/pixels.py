"""A picture of any kind as the RGB that a model sees: upright, on white, its greys scaled.

It is the picture that ``datasets`` decodes, converted to RGB as processors do, but for two things. What is transparent
shows white, not the colour below, which nobody sees. Greys of more than 8 bits are scaled, not cut off at 255.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ost_hf.data.example import RowError
from ost_hf.errors import reason_of
from ost_hf.tables.statuses import BAD_IMAGE

# From here on Pillow warns of decompression bombs: 9,459 x 9,459. A3 scanned at 600 dpi has 70 million.
MOST_PIXELS = 89_478_485
_ORIENTATION = 0x0112
_WIDE_GREYS = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def bad_image(detail: str) -> RowError:
    """The error of a row whose picture cannot be used."""
    return RowError(BAD_IMAGE, detail)


def as_rgb(image: Any, mode: str | None = None) -> Any:
    """A ``PIL.Image`` of any mode as a new one in RGB.

    Args:
        image: The picture.
        mode: A mode to convert to on the way, as a ``datasets.Image`` feature may have it.

    Raises:
        RowError: If it cannot be converted or holds pixels that are not numbers (``bad_image``).
    """
    check_size(*image.size)
    try:
        image.load()
        turn = turn_of(image)
        image = _on_white(image if turn is None else image.transpose(turn))
        if image.mode in _WIDE_GREYS:
            image = _narrowed(image)
        if mode is not None and mode not in (*_WIDE_GREYS, image.mode):  # a wider grey shows the same
            image = image.convert(mode)
        rgb = image.convert("RGB")
    except RowError:
        raise
    except Exception as error:
        raise bad_image(f"the picture cannot be converted to RGB: {reason_of(error)}") from error
    # The orientation is applied; left there, `transformers` would apply it again.
    rgb.info = {}
    return rgb


def of_numbers(values: Any) -> Any:
    """A ``PIL.Image`` of an array or nested lists: [H, W], [H, W, C] or [C, H, W] with 1, 3 or 4 channels.

    Floats from 0 to 1 are scaled to 255, as processors do.

    Raises:
        RowError: For other shapes, and for values that are no pixels (``bad_image``).
    """
    from PIL import Image

    try:
        pixels = np.asarray(values)
    except (ValueError, RecursionError):  # lists of different lengths, lists in lists in lists
        pixels = np.asarray(None)
    if pixels.dtype.kind not in "buif" or pixels.ndim not in (2, 3) or not pixels.size:
        raise bad_image("the image cell is a list that holds no picture: give numbers of shape [H, W] or [H, W, C]")
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4):
        raise bad_image(f"an array of shape {list(pixels.shape)} is no picture: it needs 1, 3 or 4 channels")
    check_size(pixels.shape[1], pixels.shape[0])
    if pixels.dtype.kind == "b":
        pixels = pixels.astype(np.uint8) * 255
    if pixels.ndim == 3 and pixels.shape[-1] > 1:
        return Image.fromarray(_eight_bits(pixels))
    pixels = pixels.reshape(pixels.shape[:2])
    if pixels.dtype == np.uint8:
        return Image.fromarray(pixels)
    is_float = pixels.dtype.kind == "f"
    return Image.fromarray(_scaled(pixels.astype(np.float32), is_unit=is_float))


def check_size(width: int, height: int) -> None:
    """Raises ``RowError`` for more pixels than are decoded."""
    if width * height > MOST_PIXELS:
        raise bad_image(f"the picture has {width:,} x {height:,} pixels; at most {MOST_PIXELS:,} are read: shrink it")


def turn_of(image: Any) -> Any | None:
    """What turns a picture upright, if its EXIF (or XMP) says so; EXIF that nobody can read says nothing."""
    from PIL import Image

    turns = Image.Transpose
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # damaged metadata raise whatever Pillow meets in them, and the pixels are sound all the same
        return None
    return {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_270,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_90,
    }.get(orientation if isinstance(orientation, int) else 1)


def is_transparent(image: Any) -> bool:
    """Whether a picture has an alpha channel, a palette with one, or a colour that stands for none."""
    has_palette = image.mode == "P" and image.palette is not None
    return (
        image.mode in ("LA", "La", "PA", "RGBA", "RGBa")
        or "transparency" in image.info
        or (has_palette and image.palette.mode.endswith("A"))
    )


def _on_white(image: Any) -> Any:
    """The picture without transparency, on a white ground; one that has none as it is."""
    from PIL import Image

    if not is_transparent(image):
        return image
    key = image.info.get("transparency")
    if image.mode in _WIDE_GREYS:
        if not isinstance(key, int):
            return image
        shown = _narrowed(image)
        alpha = Image.fromarray(np.where(np.asarray(image) == key, 0, 255).astype(np.uint8))
    else:
        values = key if isinstance(key, tuple) else (key,)
        if image.mode == "RGB" and not all(isinstance(value, int) and value < 256 for value in values):
            return image  # a colour of 16 bits, which 8 bits cannot tell from its neighbours
        shown = image.convert("LA") if image.mode == "La" else image
        shown = shown.convert("RGBA")
        alpha = shown.getchannel("A")
    shown = shown.convert("RGB")
    if alpha.getextrema() == (255, 255):
        return shown
    ground = Image.new("RGB", image.size, "white")
    ground.paste(shown, mask=alpha)
    return ground


def _narrowed(image: Any) -> Any:
    """A grey of 16 or 32 bits, or of floats, in 8 bits."""
    from PIL import Image

    values = np.asarray(image).astype(np.float32)
    # Greys of 16 bits are such whatever their brightest is; Pillow reads PGM's as 32 bits.
    is_deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    return Image.fromarray(_scaled(values, is_unit=image.mode == "F", is_deep=is_deep))


def _scaled(values: np.ndarray, is_unit: bool = False, is_deep: bool = False) -> np.ndarray:
    """Greys as 8 bits, by the smallest usual range that holds all: 0 to 1 (floats), 255, 65,535; else their own."""
    if not np.isfinite(values).all():
        raise bad_image("the picture holds pixels that are NaN or infinite")
    low, high = float(values.min()), float(values.max())
    if is_unit and low >= 0 and high <= 1:
        scaled = values * 255
    elif low >= 0 and high <= 255 and not is_deep:
        scaled = np.floor(values)  # as Pillow does
    elif low >= 0 and high <= 65535 and (is_deep or not is_unit):
        scaled = values / 257
    else:
        scaled = (values - low) * (255 / (high - low) if high > low else 0)
    return scaled.round().astype(np.uint8)


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Colours as 8 bits: from 0 to 255, or floats from 0 to 1."""
    if pixels.dtype.kind == "f":
        if not np.isfinite(pixels).all():
            raise bad_image("the picture holds pixels that are NaN or infinite")
        if pixels.min() >= 0 and pixels.max() <= 1:
            pixels = (pixels * 255).round()
    if pixels.min() < 0 or pixels.max() > 255:
        raise bad_image("colours must be whole numbers from 0 to 255, or floats from 0 to 1")
    return pixels.astype(np.uint8)
