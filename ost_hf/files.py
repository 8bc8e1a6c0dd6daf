"""Files that are whole or absent, wherever a run is killed; and hashes of what is in them."""

from __future__ import annotations

import json
import os
import shutil
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


def copy_whole(source: Path, folder: Path, linked: bool = False) -> None:
    """Copies a folder, whole or not at all, in place of what is left of another one.

    Args:
        source: What to copy.
        folder: Where to.
        linked: Link the files where the disk is the same: they take no room, and must never be written into.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, temporary, copy_function=_link if linked else shutil.copy2)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


def _link(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except OSError:  # another disk, or one without links
        shutil.copy2(source, destination)


def feed(digest: Any, path: Path) -> None:
    """Feeds a file's content to a hash of :mod:`hashlib`, in blocks: it may be larger than memory."""
    with path.open("rb") as file:
        while block := file.read(2**24):
            digest.update(block)
