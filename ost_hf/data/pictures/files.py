"""The bytes of a picture that a cell holds or names, and which files a cell may name.

Rows come from strangers, and what is read is trained on, sent to a judge, or pushed. So a row may name files of its own
pool, and no others, unless the user allows their folders. Nothing is fetched from the network.
"""

from __future__ import annotations

import base64
import binascii
import functools
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import numpy as np

from ost_hf.data.config import DatasetConfig
from ost_hf.data.pictures.pixels import bad_image
from ost_hf.errors import reason_of

# An uncompressed picture of `MOST_PIXELS` in colours of 8 bits has half of it.
MOST_BYTES = 512 * 2**20
# Shorter texts of base64's letters are names.
_LEAST_BASE64 = 40
_LONGEST_PATH = 4096
# How files of the formats that are read begin.
_BEGINNINGS = (
    *(b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf"),
)
# Builders of `datasets` whose files have no types: who made pictures of their texts did so in Python.
_WITHOUT_TYPES = ("json", "csv", "text")


class TypedCell(dict[str, Any]):
    """A cell of a ``datasets.Image`` column: ``bytes`` or ``path``, and the ``mode`` that the column converts to."""

    mode: str | None = None

    @classmethod
    def of(cls, cell: dict[str, Any], mode: str | None) -> TypedCell:
        """The cell, with the mode of its column."""
        made = cls(cell)
        made.mode = mode
        return made


@dataclass(frozen=True)
class Places:
    """Where a set of rows may read files from.

    Attributes:
        folder: The rows' own folder, where relative paths start; ``None`` for rows in memory or from the Hub.
        allowed: Folders that the user allows beside it.
        typed_anywhere: Whether the user's own Python said that a column of pictures holds paths. Then any local path
            in such a column is read, as ``datasets`` would.
    """

    folder: Path | None = None
    allowed: tuple[str, ...] = ()
    typed_anywhere: bool = False

    def find(self, named: str, is_typed: bool) -> str:
        """The real path of a file, its links followed.

        Args:
            named: As it stands in the row.
            is_typed: Whether it stands in a ``datasets.Image`` column.

        Raises:
            RowError: If it is outside the places, or cannot be a path (``bad_image``).
        """
        try:
            path = os.path.expanduser(named)
            if not os.path.isabs(path) and self.folder is not None:
                path = os.path.join(self.folder, path)
            real = os.path.realpath(path)
        except (ValueError, OSError) as error:
            raise bad_image(f"{_shown(named)} is no path: {reason_of(error)}") from error
        if is_typed and self.typed_anywhere:
            return real
        roots = [*self._own, *(_caches() if is_typed else ())]
        if not any(_is_inside(real, root) for root in roots):
            why = "is outside the folder of the rows"
            if self.folder is None:
                why = "is not read: rows in memory or from the Hub have no folder"
            raise bad_image(f"{_shown(named)} {why}; name its folder in allow_paths if it may be read")
        return real

    @functools.cached_property
    def _own(self) -> list[str]:
        roots = [os.path.realpath(os.path.expanduser(folder)) for folder in self.allowed]
        if self.folder is not None:
            roots += [os.path.realpath(self.folder), *_blobs_beside(os.path.realpath(self.folder))]
        return roots


def places_of(config: DatasetConfig, folder: Path | None, info: Any) -> Places:
    """Where a dataset's rows may read files from.

    A dataset in memory has no folder. Paths in its ``datasets.Image`` columns are read where the user's own code made
    pictures of them: in rows made in Python, in pictures that ``imagefolder`` found, in texts that were cast. Parquet
    and Arrow files say themselves which columns are pictures, and so does the page of a dataset on the Hub: these may
    be a stranger's words.

    Args:
        config: Where the rows came from, and what the user allows.
        folder: The rows' own folder, if they have one.
        info: The dataset's ``info``.
    """
    # `dataset_name` is the builder's own where that was called by its name, else that of the repository or folder.
    builder, name = info.builder_name, info.dataset_name
    in_python = builder is None or builder == "generator" or builder.endswith("folder")
    in_python |= builder == name and builder in _WITHOUT_TYPES
    is_of_hub = name is not None and config.path.rsplit("/")[-1] == name
    return Places(folder, tuple(config.allow_paths), folder is None and in_python and not is_of_hub)


def cells_in(value: Any) -> list[Any]:
    """The pictures of a cell: one, or a list of them. Lists of numbers are one picture, or the bytes of its file."""
    if value is None:
        return []
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        return [value]
    shape = _shape_of(value)
    if shape is None:
        return list(value)
    is_files = len(shape) == 2 and all(_is_file(row) for row in value)
    is_greys = len(shape) == 3 and not {shape[-1], shape[0]} & {1, 3, 4}
    return list(value) if len(shape) > 3 or is_files or is_greys else [value]


def picture_bytes(cell: Any, places: Places | None) -> bytes | None:
    """A picture's file.

    Args:
        cell: ``{"bytes", "path"}`` as ``datasets`` stores it (the bytes as such, in base64, or as numbers), a path, a
            ``file://`` address, a ``data:`` URI, base64, bytes, or a picture in memory.
        places: Where files may be read from; ``None``: nowhere.

    Returns:
        The bytes; ``None`` for a picture in memory.

    Raises:
        RowError: If the cell is nothing of that, or the file may not or cannot be read (``bad_image``).
    """
    if isinstance(cell, dict):
        data = cell.get("bytes")
        if data is not None:
            return _of_text(data) if isinstance(data, str) else _of_numbers(data)
        named = next((cell[key] for key in ("path", "url") if cell.get(key) is not None), None)
        if named is None:
            raise bad_image(f"an image cell needs bytes or a path; this one has {', '.join(map(str, cell))[:80]}")
        return _named(str(named), places, isinstance(cell, TypedCell))
    if isinstance(cell, (str, Path)):
        return _named(str(cell), places, is_typed=False)
    if isinstance(cell, (bytes, bytearray, memoryview)) or _is_row_of_numbers(cell):
        return _of_numbers(cell)
    return None


def _named(text: str, places: Places | None, is_typed: bool) -> bytes:
    """The bytes of what a text means: a ``data:`` URI, base64, or a file."""
    if text[:5].lower() == "data:":
        return _of_text(text)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", text[:40])
    if scheme is not None and scheme[1].lower() == "file":
        text = re.sub(r"^(//localhost(?=/)|//)", "", text[5:])
    elif scheme is not None and text[scheme.end() :].startswith("//"):
        raise bad_image(f"the picture is at a {scheme[1][:20]}:// address, and nothing is fetched: give files or bytes")
    elif len(text) >= _LEAST_BASE64 and "." not in text and text[:10].isascii():
        data = _of_base64(text)
        if data is not None and _has_beginning(data):
            return data
    if len(text) > _LONGEST_PATH:
        raise bad_image(f"a text of {len(text):,} characters is no path, no data: URI and no base64 of a picture")
    if places is None:
        raise bad_image(f"no image file at {_shown(text)}: no folder is known")
    real = places.find(text, is_typed)
    if "%" in text and not os.path.exists(real) and scheme is not None:
        real = places.find(unquote(text), is_typed)
    return _read(real, text)


def _read(path: str, named: str) -> bytes:
    """A regular file's bytes; devices and pipes may never end."""
    # A pipe that nobody writes to would keep `open` waiting.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        with open(os.open(path, flags), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise bad_image(f"{_shown(named)} is no regular file")
            if about.st_size > MOST_BYTES:
                raise bad_image(f"{_shown(named)} has {about.st_size:,} bytes; at most {MOST_BYTES:,} are read")
            return file.read(about.st_size)
    except FileNotFoundError as error:
        raise bad_image(f"no image file at {_shown(named)}") from error
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or type(error).__name__
        raise bad_image(f"{_shown(named)} cannot be read: {cause}") from error


def _of_text(text: str) -> bytes:
    """The bytes that a text holds: a ``data:`` URI, or base64."""
    head, comma, rest = text.partition(",") if text[:5].lower() == "data:" else ("", "", text)
    if comma and not head.lower().rstrip().endswith("base64"):
        data: bytes | None = unquote_to_bytes(rest)
    else:
        data = _of_base64(unquote(rest) if comma and "%" in rest else rest)
    if data is None:
        raise bad_image(f"a text of {len(text):,} characters stands where bytes should, and it is no base64")
    return data


def _of_base64(text: str) -> bytes | None:
    """Base64 of either alphabet, with or without padding and line ends; ``None`` for what is none."""
    letters = "".join(text.split()).rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _of_numbers(values: Any) -> bytes:
    """Bytes as such, or as numbers from 0 to 255."""
    if isinstance(values, np.ndarray):
        values = values.ravel().tolist()
    try:
        if isinstance(values, (bytes, bytearray, memoryview, list, tuple)):
            return bytes(values)
    except (TypeError, ValueError):
        pass
    raise bad_image("the bytes of an image must be bytes, base64, or numbers from 0 to 255")


def _is_row_of_numbers(value: Any) -> bool:
    shape = value.shape if isinstance(value, np.ndarray) else _shape_of(value)
    return shape is not None and len(shape) == 1


def _shape_of(value: Any) -> tuple[int, ...] | None:
    """The lengths of nested lists of numbers, by what comes first in each; ``None`` for other things."""
    shape = []
    while isinstance(value, (list, tuple)):
        if not value:
            return None
        shape.append(len(value))
        value = value[0]
    return tuple(shape) if shape and isinstance(value, (int, float, np.number)) else None


def _is_file(row: Any) -> bool:
    try:
        return _has_beginning(bytes(row[:12]))
    except (TypeError, ValueError):
        return False


def _has_beginning(data: bytes) -> bool:
    return data.startswith(_BEGINNINGS) or data[4:8] == b"ftyp"


def _is_inside(path: str, root: str) -> bool:
    try:
        return os.path.commonpath([path, root]) == root
    except ValueError:  # another drive
        return False


def _blobs_beside(folder: str) -> list[str]:
    """Where the links of a snapshot in the Hub's cache point to: ``snapshots/<commit>`` has ``blobs`` beside it."""
    parts = Path(folder).parts
    for place in range(len(parts) - 1, 0, -1):
        blobs = os.path.join(*parts[:place], "blobs")
        if parts[place] == "snapshots" and os.path.isdir(blobs) and os.path.realpath(blobs) == blobs:
            return [blobs]
    return []


def _caches() -> tuple[str, ...]:
    """Where ``datasets`` and the Hub's client put what they download."""
    import datasets
    import huggingface_hub

    caches = (datasets.config.HF_DATASETS_CACHE, huggingface_hub.constants.HF_HUB_CACHE)
    return tuple(os.path.realpath(os.path.expanduser(cache)) for cache in caches)


def _shown(named: str) -> str:
    """A path for a message: short, and the last part alone of an absolute one."""
    text = os.path.basename(named.rstrip("/")) if os.path.isabs(named) or named.startswith("~") else named
    return repr(text if len(text) <= 80 else f"{text[:80]}...")
