"""Rows from whatever people have: a name, a file, a configuration, a dataset, a list of rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets

from ost_hf.data.anchors import load_anchors
from ost_hf.data.config import AnchorConfig, DatasetConfig
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.reading.records import dataset_of
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError
from ost_hf.settings import build

ID_COLUMN = "example_id"


def rows_from(source: Any, what: str = "pool", processing_class: Any = None) -> Rows:
    """The rows that a user's argument means.

    Args:
        source: A name on the Hub, a file or a folder (text, or JSON of a section's fields); a mapping of such fields; a
            ``DatasetConfig`` or ``AnchorConfig``; a ``datasets.Dataset``; a list of rows; ``Rows`` or an
            ``EncodedDataset``.
        what: What messages call it. For ``anchors`` fields are those of ``AnchorConfig``.
        processing_class: The tokenizer or processor that rows of tokens were made with.

    Raises:
        DataError: If there are no such rows, or nothing of this type can be read.
        ConfigError: For an unknown field, or JSON that is none.
    """
    if isinstance(source, str) and source.lstrip().startswith("{"):
        try:
            source = json.loads(source)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{what} is no JSON ({error}): give a name, a file, or fields as JSON") from error
    if isinstance(source, (datasets.DatasetDict, datasets.IterableDatasetDict)):
        raise DataError(f"{what} has splits ({', '.join(source) or 'none'}): give one of them, as a datasets.Dataset")
    cls = AnchorConfig if what == "anchors" else DatasetConfig
    if isinstance(source, (str, Path)):
        source = cls(path=str(source))
    elif isinstance(source, Mapping):
        source = build(cls, source, what)
    if isinstance(source, AnchorConfig):
        return load_anchors(source)
    if isinstance(source, DatasetConfig):
        return Rows.load(source)
    if isinstance(source, EncodedDataset):
        return source.rows
    if isinstance(source, Rows):
        return source
    if isinstance(source, (list, tuple)) and source and all(isinstance(row, Mapping) for row in source):
        source = dataset_of(list(source))
    if isinstance(source, datasets.Dataset):
        return rows_in_memory(source, processing_class)
    raise DataError(
        f"{what} must be a name, a file, a datasets.Dataset, a list of rows, Rows or a configuration, got a "
        f"{type(source).__name__}"
    )


def rows_in_memory(dataset: datasets.Dataset, processing_class: Any = None) -> Rows:
    """A dataset as rows: an ``example_id`` column names them if there is one."""
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    id_column = ID_COLUMN if ID_COLUMN in dataset.column_names else None
    name = getattr(tokenizer, "name_or_path", None)
    return Rows(dataset, DatasetConfig(path="in memory", id_column=id_column, tokenizer=name))
