"""Images as they lie in rows: encoded bytes, a path, numbers, or a picture in memory. All are opened here."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np

from ost_hf.data.example import RowError
from ost_hf.data.pictures.files import Places, TypedCell, picture_bytes
from ost_hf.data.pictures.formats import Picture, decode
from ost_hf.data.pictures.pixels import as_rgb, bad_image, check_size, of_numbers, turn_of


def image_key(image: Any, places: Places | None) -> str:
    """A hash that is equal for equal images: of the encoded bytes where there are any, else of the pixels.

    An image file that cannot be read is named by its path, so that the row still gets its id.
    """
    try:
        data = picture_bytes(image, places)
        data = _pixels_of(image) if data is None else data
    except RowError:
        data = _words_of(image)
    if _mode_of(image) is not None:
        data += f"as {_mode_of(image)}".encode()
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def read_picture(image: Any, places: Places | None) -> Picture:
    """Decodes an image completely, so that a damaged file fails here and not inside a model.

    Args:
        image: ``{"bytes", "path"}`` as ``datasets`` stores it, a path, a URI, base64, bytes, an array or lists of
            pixels, or a ``PIL.Image``.
        places: Where files may be read from; ``None``: nowhere.

    Returns:
        A picture whose ``image`` is a ``PIL.Image`` in RGB.

    Raises:
        RowError: If it cannot be read, with the reason (``bad_image``).
    """
    data = picture_bytes(image, places)
    if data is not None:
        return decode(data, _mode_of(image))
    if _is_pil(image):
        return Picture(as_rgb(image))
    if isinstance(image, (list, tuple, np.ndarray)):
        return Picture(as_rgb(of_numbers(image)))
    raise bad_image(f"an image cell may be bytes, a path, numbers or a picture, not {type(image).__name__}")


def open_image(image: Any, places: Places | None) -> Any:
    """The ``PIL.Image`` of :func:`read_picture`."""
    return read_picture(image, places).image


def image_file(image: Any, places: Places | None) -> tuple[bytes, str]:
    """An image as a file in which any server sees what the proxy sees.

    Its own bytes, where the format is a common one and nothing of it depends on the reader (an orientation in EXIF,
    transparency, several frames); else a PNG.

    Args:
        image: As for :func:`read_picture`.
        places: As above.

    Returns:
        The bytes and their media type.

    Raises:
        RowError: As :func:`read_picture`.
    """
    picture = read_picture(image, places)
    if picture.media_type is not None:
        data = picture_bytes(image, places)
        assert data is not None
        return data, picture.media_type
    buffer = io.BytesIO()
    picture.image.save(buffer, format="PNG")
    return buffer.getvalue(), "image/png"


def _mode_of(image: Any) -> str | None:
    return image.mode if isinstance(image, TypedCell) else None


def _is_pil(image: Any) -> bool:
    from PIL import Image

    return isinstance(image, Image.Image)


def _words_of(image: Any) -> bytes:
    try:
        return str(image).encode("utf-8", "surrogatepass")
    except RecursionError:
        return type(image).__name__.encode()


def _pixels_of(image: Any) -> bytes:
    """What decides how a picture in memory looks."""
    if not _is_pil(image):
        try:
            numbers = np.asarray(image)
        except (ValueError, RecursionError):  # lists of different lengths, lists in lists in lists
            numbers = np.asarray(None)
        if numbers.dtype.kind in "buif":
            return f"{numbers.dtype}{numbers.shape}".encode() + numbers.tobytes()
        return _words_of(image)
    head = f"{image.mode}{image.size}".encode()
    try:
        check_size(*image.size)
        data = head + image.tobytes()
        if image.mode in ("P", "PA"):
            data += bytes(image.getpalette("RGBA") or ())
        told = (image.info.get("transparency"), turn_of(image))
        return data if told == (None, None) else data + repr(told).encode()
    except Exception:  # a damaged file, opened by the user and decoded here
        return head + str(getattr(image, "filename", "")).encode()
