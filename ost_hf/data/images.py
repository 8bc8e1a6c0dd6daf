"""Images as they lie in rows: encoded bytes, a path, or a picture in memory."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

# What servers of vision-language models accept.
_COMMON_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif")


def image_key(image: Any, folder: Path | None) -> str:
    """A hash that is equal for equal images: of the encoded bytes where there are any, else of the pixels.

    An image file that cannot be read is named by its path, so that the row still gets its id.
    """
    data = _bytes_of(image, folder)
    if data is None and hasattr(image, "tobytes"):
        data = f"{image.mode}{image.size}".encode() + image.tobytes()
    if data is None:
        data = str(image).encode()
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def open_image(image: Any, folder: Path | None) -> Any:
    """Decodes an image completely, so that a damaged file fails here and not inside a model.

    Args:
        image: ``{"bytes", "path"}`` as ``datasets`` stores it, a path, or a ``PIL.Image``.
        folder: Where relative paths start.

    Returns:
        A ``PIL.Image`` in RGB.

    Raises:
        OSError, ValueError: If it cannot be read; ``PIL`` says why.
    """
    from PIL import Image

    if isinstance(image, Image.Image):
        return image.convert("RGB")
    data = _bytes_of(image, folder)
    if data is None:
        raise ValueError(f"no image file at {image.get('path') if isinstance(image, dict) else image!r}")
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    # PIL's SyntaxError: some damaged PNG files; RuntimeError: AVIF, DDS.
    except (Image.DecompressionBombError, SyntaxError, RuntimeError) as error:
        raise ValueError(str(error)) from error


def image_file(image: Any, folder: Path | None) -> tuple[bytes, str]:
    """An image as a file that any server reads: its own bytes where the format is a common one, else a PNG.

    Args:
        image: As for :func:`open_image`.
        folder: Where relative paths start.

    Returns:
        The bytes and their media type.

    Raises:
        OSError, ValueError: As :func:`open_image`.
    """
    from PIL import Image

    decoded = open_image(image, folder)
    data = None if isinstance(image, Image.Image) else _bytes_of(image, folder)
    if data is not None:
        media_type = Image.open(io.BytesIO(data)).get_format_mimetype()
        if media_type in _COMMON_TYPES:
            return data, media_type
    buffer = io.BytesIO()
    decoded.save(buffer, format="PNG")
    return buffer.getvalue(), "image/png"


def _bytes_of(image: Any, folder: Path | None) -> bytes | None:
    if isinstance(image, dict):
        if image.get("bytes") is not None:
            return image["bytes"]
        image = image.get("path")
    if not isinstance(image, (str, Path)):
        return None
    path = Path(image).expanduser()
    if not path.is_absolute() and folder is not None:
        path = folder / path
    try:
        return path.read_bytes()
    except OSError:
        return None
