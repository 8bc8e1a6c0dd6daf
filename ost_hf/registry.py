"""Names that users can add to: scorers, second stages, update rules.

An entry of ours stands in a module of its own, ``PACKAGE.NAME``, and is imported when its name is first asked for. One
of the user's stands in a file or an installed package, and registers itself with the same decorator.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import sys
import zlib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Generic, TypeVar

from ost_hf.errors import ConfigError, unknown_key

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """Entries by name.

    Args:
        what: What an entry is called in messages, such as ``scorer``.
        package: The package whose modules hold our own entries, each named like its module.
        entry_points: The group of entry points under which other packages offer theirs.
    """

    def __init__(self, what: str, package: str, entry_points: str | None = None):
        self.what, self.package, self.entry_points = what, package, entry_points
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, entry: Entry) -> None:
        """Registers ``entry``, in place of one of the same name."""
        # Ours first, if there is one: imported later it would take the place of the user's.
        self._import_ours(name)
        self._entries[name] = entry

    def find(self, name: str) -> Entry:
        """The entry of a name.

        Raises:
            ConfigError: If there is none.
        """
        if name not in self:
            raise ConfigError(unknown_key(self.what, name, self.names()))
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        if name in self._entries:
            return True
        if not isinstance(name, str):
            return False
        self._import_ours(name)
        if name not in self._entries:
            self._load_offered(name)
        return name in self._entries

    def names(self) -> list[str]:
        """All names, for which everything is imported."""
        folder = importlib.import_module(self.package).__path__
        for module in pkgutil.iter_modules(folder):
            self._import_ours(module.name)
        for point in self._offered():
            point.load()
        return sorted(self._entries)

    def _import_ours(self, name: str) -> None:
        module = f"{self.package}.{name}"
        if name.isidentifier() and importlib.util.find_spec(module) is not None:
            importlib.import_module(module)

    def _load_offered(self, name: str) -> None:
        for point in self._offered():
            if point.name == name:
                point.load()

    def _offered(self) -> list[metadata.EntryPoint]:
        return _entry_points(self.entry_points, tuple(map(_changed_at, sys.path))) if self.entry_points else []


@cache
def _entry_points(group: str, places: tuple[tuple[str, int], ...]) -> list[metadata.EntryPoint]:
    """Once for what is installed in these places: a file of every package is read, and a study has many sections."""
    return list(metadata.entry_points(group=group))


def _changed_at(folder: str) -> tuple[str, int]:
    """When something was last put into a folder, or taken out."""
    try:
        return folder, os.stat(folder or ".").st_mtime_ns
    except OSError:
        return folder, 0


def import_file(name: str) -> None:
    """Imports a Python file, or a module by its dotted name, so that what it registers is known.

    Args:
        name: ``my_scorer.py``, read from the working directory, or ``my_package.my_scorer``.

    Raises:
        ConfigError: If there is no such file or module.
    """
    if not name.endswith(".py"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"cannot import {name!r} ({error}): name a .py file, or a module that is installed"
            ) from error
        return
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"there is no file {name} to import")
    known = f"ost_hf_import_{path.stem}_{zlib.crc32(bytes(path)):08x}"
    # Once: a second import would make other classes of the same names.
    if known in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(known, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[known] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[known]  # half a module is none
        raise
