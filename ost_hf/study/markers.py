"""What marks an arm as done: its result beside the configuration that it was made with."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from ost_hf.errors import RunDirectoryError
from ost_hf.files import feed, write_json
from ost_hf.runs.config import RunConfig

Record = dict[str, Any]

_LARGE_BYTES = 2**28


def identity(config: RunConfig) -> Record:
    """What an arm is made with: its configuration, and what the local files that it names hold now.

    A base that was taught anew and data that were made anew lie at the same path.
    """
    named = {}
    for section in ("pool", "anchors", "evaluation"):
        source = getattr(config, section)
        if source is not None:
            named[f"{section}.path"] = _digest(Path(source.path).expanduser())
    for section in ("proxy", "target"):
        source = getattr(config, section)
        if source is not None:
            named[f"{section}.model"] = _digest(Path(source.model).expanduser())
    return json.loads(json.dumps({**config.resolved(), "files": named}))


def data_digests(config: RunConfig) -> Record:
    """Hashes of what all methods of a setting and seed share, where it lies here: the pool and the rows asked after.

    Of the content however large, for they are held against those of other machines.
    """
    sources = {name: getattr(config, name) for name in ("pool", "evaluation")}
    found = {
        name: _digest(Path(each.path).expanduser(), whole=True) for name, each in sources.items() if each is not None
    }
    return {name: digest for name, digest in found.items() if digest is not None}


def _digest(path: Path, whole: bool = False) -> str | None:
    """A hash of a file, or of a folder's files; ``None`` for what is not here, such as a name on the Hub."""
    if path.is_file():
        return _hash(path, path.stat().st_size, path.stat().st_mtime_ns, whole)
    if not path.is_dir():
        return None
    files = sorted(item for item in path.rglob("*") if item.is_file())
    parts = [f"{item.relative_to(path)} {_digest(item, whole)}" for item in files]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=4096)
def _hash(path: Path, size: int, changed: int, whole: bool) -> str:
    """Of the content; unless all of it is asked for, of size and time of change alone for what takes long to read."""
    if size > _LARGE_BYTES and not whole:
        return f"{size} bytes changed at {changed}"
    digest = hashlib.blake2b(digest_size=16)
    feed(digest, path)
    return digest.hexdigest()


def read_done(marker: Path, config: RunConfig) -> Record | None:
    """What a finished arm or scoring wrote; ``None`` if it is not finished.

    Raises:
        RunDirectoryError: If it was made with another configuration.
    """
    if not marker.exists():
        return None
    stored = json.loads(marker.read_text())
    wanted = identity(config)
    if stored["config"] != wanted:
        changed = sorted(key for key in wanted if stored["config"].get(key) != wanted[key])
        raise RunDirectoryError(
            f"{marker.parent} was made with another configuration ({', '.join(changed)} differs); "
            "choose another run_dir, or remove the folder to make it again"
        )
    return stored["result"]


def write_done(marker: Path, config: RunConfig, made_with: Record, result: Record) -> None:
    """Marks as done what was made with ``config``.

    Args:
        marker: The file.
        config: The arm's.
        made_with: Its :func:`identity` before anything was made.
        result: What is kept of it.

    Raises:
        RunDirectoryError: If a file has changed in between: nobody knows which one was read.
    """
    if identity(config) != made_with:
        raise RunDirectoryError(
            f"data or models of {marker.parent} changed while it was made; remove the folder to make it again"
        )
    write_json(marker, {"config": made_with, "result": result})
