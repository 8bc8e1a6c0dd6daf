"""Files that are whole or absent, wherever a run is killed; and hashes of what is in them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Writes under a temporary name beside ``path`` and renames; the folder is made.

    Args:
        path: The file, replaced if it is there.
        write: Writes to the path it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    write(temporary)
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Writes a text, whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any, indent: int = 2) -> None:
    """Writes JSON for people and programs, whole or not at all; a number that is not finite is refused."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def feed(digest: Any, path: Path) -> None:
    """Feeds a file's content to a hash of :mod:`hashlib`, in blocks: it may be larger than memory."""
    with path.open("rb") as file:
        while block := file.read(2**24):
            digest.update(block)
