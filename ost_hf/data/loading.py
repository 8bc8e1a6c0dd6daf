"""Rows from the Hub, local files or memory, as a ``datasets.Dataset``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from ost_hf.data.config import DatasetConfig
from ost_hf.errors import DataError

_FILE_LOADERS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".arrow": "arrow"}


def load_dataset(config: DatasetConfig) -> datasets.Dataset:
    """Loads the rows a configuration names.

    Args:
        config: Where the rows are.

    Returns:
        The rows, columns untouched.

    Raises:
        DataError: If the file type is unknown, the split does not exist or no row is left.
    """
    path = Path(config.path).expanduser()
    if path.is_file():
        loader = _FILE_LOADERS.get(path.suffix.lower())
        if loader is None:
            raise DataError(f"cannot read {config.path}: known file types are {', '.join(sorted(_FILE_LOADERS))}")
        # A single file is always the split "train", whatever slice of it was asked for.
        dataset = datasets.load_dataset(loader, data_files={"train": str(path)}, split=config.split)
    elif path.is_dir() and (path / "state.json").exists():
        dataset = datasets.load_from_disk(str(path))
    elif path.is_dir() and (path / "dataset_dict.json").exists():
        splits = datasets.load_from_disk(str(path))
        if config.split not in splits:
            raise DataError(f"{config.path} has no split {config.split!r}; there are: {', '.join(splits)}")
        dataset = splits[config.split]
    elif path.suffix.lower() in _FILE_LOADERS:
        raise DataError(f"{config.path} does not exist")
    else:
        dataset = datasets.load_dataset(str(config.path), config.name, split=config.split, revision=config.revision)
    if config.limit is not None:
        dataset = dataset.select(range(min(config.limit, len(dataset))))
    if len(dataset) == 0:
        raise DataError(f"{config.path} (split {config.split!r}) has no rows")
    return dataset


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
        return None if inner is None else datasets.List(inner)
    return None
