"""Rows from the Hub, local files or memory, as a ``datasets.Dataset``."""

from __future__ import annotations

import csv
import glob
import logging
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets

from ost_hf.data.config import DatasetConfig
from ost_hf.data.layouts import text_columns
from ost_hf.data.pictures.files import TypedCell
from ost_hf.data.reading.records import UNREADABLE
from ost_hf.data.reading.text_files import csv_options, has_long_numbers, is_sound, read_rows
from ost_hf.errors import DataError, reason_of

logger = logging.getLogger(__name__)

_FILE_LOADERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".arrow": "arrow"}


def load_dataset(config: DatasetConfig) -> datasets.Dataset:
    """Loads the rows a configuration names.

    Args:
        config: Where the rows are.

    Returns:
        The rows, columns untouched.

    Raises:
        DataError: If the file type is unknown, the rows cannot be loaded, the split does not exist or no row
            is left.
    """
    path = Path(config.path).expanduser()
    if path.is_file():
        loader = _FILE_LOADERS.get(path.suffix.lower())
        if loader is None:
            raise DataError(f"cannot read {config.path}: known file types are {', '.join(sorted(_FILE_LOADERS))}")
        # A single file is always the split "train", whatever slice of it was asked for.
        dataset = _load_files(config, loader, {"train": [path]})
    elif path.is_dir() and (path / "state.json").exists():
        dataset = _load(config, datasets.load_from_disk, str(path))
        if config.split not in ("train", str(dataset.split)):
            raise DataError(f"{config.path} was saved without splits; there is no split {config.split!r} to take")
    elif path.is_dir() and (path / "dataset_dict.json").exists():
        splits = _load(config, datasets.load_from_disk, str(path))
        if config.split not in splits:
            raise DataError(f"{config.path} has no split {config.split!r}; there are: {', '.join(splits)}")
        dataset = splits[config.split]
    elif path.suffix.lower() in _FILE_LOADERS:
        raise DataError(f"{config.path} does not exist")
    elif path.is_dir():
        dataset = _load_folder(config, path)
    else:
        name = config.path
        dataset = _load(config, datasets.load_dataset, name, config.name, split=config.split, revision=config.revision)
    if config.limit is not None:
        dataset = dataset.select(range(min(config.limit, len(dataset))))
    if len(dataset) == 0:
        raise DataError(f"{config.path} (split {config.split!r}) has no rows")
    return dataset


def _load_folder(config: DatasetConfig, path: Path) -> datasets.Dataset:
    """The rows of a folder's files, as ``datasets`` finds them there."""
    if glob.escape(str(path)) == str(path):
        name, where = str(path), {}
    else:
        # Where ``datasets`` looks for files it reads brackets as a pattern, and a folder has no way to say otherwise.
        name, where = _loader_of(path), {"data_dir": glob.escape(str(path.resolve()))}
    builder = _load(config, datasets.load_dataset_builder, name, config.name, **where)
    files = {str(split): [Path(name) for name in names] for split, names in (builder.config.data_files or {}).items()}
    loaders = {_FILE_LOADERS.get(file.suffix.lower()) for names in files.values() for file in names}
    if config.name is None and builder.config.features is None and loaders in ({"json"}, {"csv"}):
        return _load_files(config, str(*loaders), files)
    return _load(config, datasets.load_dataset, name, config.name, split=config.split, **where)


def _loader_of(folder: Path) -> str:
    """What reads most of a folder's files."""
    kinds = Counter(_FILE_LOADERS.get(file.suffix.lower(), "imagefolder") for file in folder.rglob("*.*"))
    # Beside pictures lies a table of what is said about them.
    found = [kind for kind, _ in kinds.most_common()]
    return "imagefolder" if "imagefolder" in found and (folder / "metadata.jsonl").exists() else (found or ["json"])[0]


def _load_files(config: DatasetConfig, loader: str, files: dict[str, list[Path]]) -> datasets.Dataset:
    """The rows of some files of one type; in JSON and CSV files a row that cannot be read does not hide the others."""
    paths = [path for names in files.values() for path in names]
    escaped = {split: [glob.escape(str(path)) for path in names] for split, names in files.items()}
    load = partial(_load, config, datasets.load_dataset, loader, data_files=escaped, split=config.split)
    if loader not in ("json", "csv"):
        return load()
    text = text_columns(config)
    refused = None
    if all(is_sound(path, loader) for path in paths):
        try:
            dataset = load(**(csv_options(paths, text) if loader == "csv" else {}))
        except DataError as error:
            refused = error
        else:
            if loader == "csv" or _is_as_written(dataset.features, paths):
                return dataset
    name = re.match(r"\w*", config.split)
    if name is None or name.group() not in files:
        raise refused or DataError(f"{config.path} has no split {config.split!r}; there are: {', '.join(files)}")
    try:
        rows = read_rows(files[name.group()], loader, text)
    except DataError as error:
        raise refused or error from None
    except (ValueError, OSError, RecursionError, csv.Error, datasets.exceptions.DatasetsError) as error:
        raise refused or DataError(f"cannot load {config.path}: {reason_of(error.__cause__ or error)}") from error
    _tell_unreadable(config, rows)
    return _sliced(config, rows, name.group())


def _is_as_written(features: Any, paths: list[Path]) -> bool:
    """Whether JSON's texts and numbers are what they were.

    Arrow takes texts for times and cuts long numbers; columns of unlike values are read in
    :mod:`ost_hf.data.reading.records`.
    """
    types = repr(features)
    if "timestamp" in types or "Json" in types:
        return False
    return "float" not in types or not any(map(has_long_numbers, paths))


def _tell_unreadable(config: DatasetConfig, rows: datasets.Dataset) -> None:
    """One sentence about the rows that cannot be read."""
    if UNREADABLE in rows.column_names:
        reasons = [reason for reason in rows[UNREADABLE] if reason is not None]
        logger.warning(
            "%d of %d rows of %s cannot be read and get the status bad_row, such as: %s",
            len(reasons), len(rows), config.path, reasons[0],
        )  # fmt: skip


def _sliced(config: DatasetConfig, rows: datasets.Dataset, split: str) -> datasets.Dataset:
    """The part of a split that was asked for."""
    try:
        parts = datasets.ReadInstruction.from_spec(config.split).to_absolute({split: len(rows)})
    except (ValueError, AssertionError) as error:
        raise DataError(f"cannot load {config.path} (split {config.split!r}): {error}") from error
    wanted = [row for part in parts for row in range(part.from_ or 0, len(rows) if part.to is None else part.to)]
    return rows if wanted == list(range(len(rows))) else rows.select(wanted)


def _load(config: DatasetConfig, load: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What ``load`` returns, its many errors made one that names the rows and the cause."""
    try:
        return load(*args, **kwargs)
    except (StopIteration, IndexError) as error:  # how `datasets` meets files without rows
        raise DataError(f"{config.path} (split {config.split!r}) has no rows") from error
    except (ValueError, OSError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        raise DataError(f"cannot load {config.path} (split {config.split!r}): {cause}") from error


def without_decoding(dataset: datasets.Dataset, columns: list[str]) -> datasets.Dataset:
    """Leaves images as bytes or paths and JSON as text, so that an unreadable one fails alone, at its own row."""
    for column in columns:
        undecoded = _undecoded(dataset.features[column])
        if undecoded is not None:
            dataset = dataset.cast_column(column, undecoded)
    return dataset


def _undecoded(feature: Any) -> Any | None:
    """The same feature with ``decode=False``, or ``None`` where there is nothing to decode."""
    if hasattr(feature, "embed_storage"):  # Image, Audio, Video and the like
        return replace(feature, decode=False)
    if isinstance(feature, datasets.Json):
        return datasets.Json(decode=False)
    if isinstance(feature, datasets.List):
        inner = _undecoded(feature.feature)
        return None if inner is None else datasets.List(inner, length=feature.length)
    if isinstance(feature, datasets.LargeList):
        inner = _undecoded(feature.feature)
        return None if inner is None else datasets.LargeList(inner)
    if isinstance(feature, dict):
        inner = {name: _undecoded(value) for name, value in feature.items()}
        return {name: inner[name] or feature[name] for name in feature} if any(inner.values()) else None
    return None


def typed_cells(value: Any, feature: Any) -> Any:
    """The same cell, in which each cell of a type whose cells are files is a ``TypedCell``.

    Args:
        value: As ``datasets`` gives it undecoded.
        feature: Its type.
    """
    if hasattr(feature, "embed_storage") and isinstance(value, dict):
        return TypedCell.of(value, getattr(feature, "mode", None))
    if isinstance(feature, dict) and isinstance(value, dict):
        return {name: typed_cells(each, feature.get(name)) for name, each in value.items()}
    if isinstance(feature, (datasets.List, datasets.LargeList)) and isinstance(value, list):
        return [typed_cells(each, feature.feature) for each in value]
    return value


def file_columns(features: datasets.Features) -> dict[str, Any]:
    """The columns whose cells are files or name them, or hold such cells within."""
    return {name: feature for name, feature in features.items() if _undecoded(feature) is not None}
