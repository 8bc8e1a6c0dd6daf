"""Files of pictures, decoded in bounded time and memory: formats of a list, and sizes that are sensible."""

from __future__ import annotations

import functools
import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ost_hf.data.pictures.pixels import MOST_PIXELS, as_rgb, bad_image, check_size, is_transparent, turn_of
from ost_hf.errors import reason_of

# What Pillow decodes by itself; it would start another program for EPS.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
# Scans of a progressive JPEG; each is a pass over the whole picture, and takes only a few bytes. Cameras write 10.
_MOST_SCANS = 100
# Of a JPEG's segments; 00 and D0 to D7 stand inside of scans.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd8\xff]")
# What servers of vision-language models accept.
_COMMON_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif")
# Frames that belong together in time or as pages; a phone's MPO holds the same view again, to brighten its screen.
_SEQUENCES = ("GIF", "WEBP", "PNG", "AVIF", "TIFF")
_TILE_WIDTH, _TILE_LENGTH = 322, 323


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    ``image`` is a ``PIL.Image`` in RGB without metadata; ``note`` says what of the file is not in it. ``media_type`` is
    set where the file itself shows exactly this picture to any reader.
    """

    image: Any
    note: str = ""
    media_type: str | None = None


def decode(data: bytes, mode: str | None = None) -> Picture:
    """Decodes a file completely, so that a damaged one fails here and not inside a model.

    Args:
        data: The file.
        mode: The mode that a ``datasets.Image`` feature converts to, if any.

    Raises:
        RowError: If it is damaged, too large, or of none of ``FORMATS`` (``bad_image``).
    """
    with _quiet():
        return _as_picture(data, mode)


def _as_picture(data: bytes, mode: str | None) -> Picture:
    image = _opened(data)
    try:
        image.load()
    except Exception as error:  # many kinds: damaged files are met deep inside the decoders
        raise bad_image(f"the picture is damaged: {reason_of(error)}") from error
    _mend_key_colour(image, data)
    is_plain = image.mode in ("L", "RGB") and turn_of(image) is None and not is_transparent(image)
    shown = as_rgb(image, mode)
    note = f"has several frames ({image.format}), of which the first is shown" if _has_frames(image) else ""
    media_type = image.get_format_mimetype()
    is_as_stored = is_plain and not note and media_type in _COMMON_TYPES and mode in (None, "RGB", image.mode)
    return Picture(shown, note, media_type if is_as_stored else None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Where warnings are errors, Pillow's own of metadata and sizes are none: they do not decide a row's status.

    Filters belong to the whole process, so threads beside the main one leave them alone. Elsewhere they stay as they
    are: after each change, Python would print again every warning that it has printed.
    """
    are_errors = any(action == "error" for action, *_ in warnings.filters)
    if not are_errors or threading.current_thread() is not threading.main_thread():
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _opened(data: bytes) -> Any:
    """The file's header, read: nothing is decoded yet."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise bad_image("the picture has no bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=_formats())
    except UnidentifiedImageError as error:
        raise bad_image(f"this is no picture, or a damaged one; the formats read are {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise bad_image(f"the picture is too large; at most {MOST_PIXELS:,} pixels are read: shrink it") from error
    except Exception as error:
        raise bad_image(f"the picture is damaged: {reason_of(error)}") from error
    check_size(*image.size)
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        sides = [tags.get(tag, 1) for tag in (_TILE_WIDTH, _TILE_LENGTH)]
        check_size(*(side if isinstance(side, int) else 1 for side in sides))
    if image.format in ("JPEG", "MPO") and _scans_of(data) > _MOST_SCANS:
        raise bad_image(f"the JPEG has more than {_MOST_SCANS} scans: save it again")
    return image


def _scans_of(data: bytes) -> int:
    """The scans of a JPEG, or one more than are decoded; without thumbnails, and what stands behind the picture."""
    place, scans = 2, 0
    while scans <= _MOST_SCANS:
        found = _MARKER.search(data, place)
        if found is None or found[0] == b"\xff\xd9":
            break
        scans += found[0] == b"\xff\xda"
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return scans


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of ``FORMATS`` that this build of Pillow has."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _has_frames(image: Any) -> bool:
    if image.format not in _SEQUENCES:
        return False
    try:
        return bool(image.is_animated)
    except Exception:  # a damaged second frame is not shown in any case
        return False


def _mend_key_colour(image: Any, data: bytes) -> None:
    """A PNG of 1, 2 or 4 bits names its transparent grey in those bits; Pillow scales the pixels and not the name."""
    key = image.info.get("transparency")
    depth = data[24] if image.format == "PNG" and len(data) > 24 else 8
    if isinstance(key, int) and image.mode in ("1", "L") and depth in (1, 2, 4):
        image.info["transparency"] = key * 255 // (2**depth - 1)
