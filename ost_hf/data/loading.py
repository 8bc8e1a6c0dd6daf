"""Rows from the Hub, local files or memory, as a ``datasets.Dataset``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets

from ost_hf.data.config import DatasetConfig
from ost_hf.errors import DataError

# Of rows that a file holds and nobody can read: why. Other rows have nothing in this column.
UNREADABLE = "ost_unreadable"
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
        dataset = _load(config, datasets.load_dataset, loader, data_files={"train": str(path)}, split=config.split)
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
    else:
        name = str(path) if path.is_dir() else config.path
        dataset = _load(config, datasets.load_dataset, name, config.name, split=config.split, revision=config.revision)
    if config.limit is not None:
        dataset = dataset.select(range(min(config.limit, len(dataset))))
    if len(dataset) == 0:
        raise DataError(f"{config.path} (split {config.split!r}) has no rows")
    return dataset


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
    """Leaves image columns as bytes or paths, so that an unreadable one fails alone, at its own row."""
    for column in columns:
        undecoded = _undecoded(dataset.features[column])
        if undecoded is not None:
            dataset = dataset.cast_column(column, undecoded)
    return dataset


def _undecoded(feature: Any) -> Any | None:
    """The same feature with ``decode=False``, or ``None`` where there is no image to decode."""
    if isinstance(feature, datasets.Image):
        return datasets.Image(mode=feature.mode, decode=False)
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
