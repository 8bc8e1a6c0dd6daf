"""Pushes a curated dataset: kept rows with utilities, the score table as a second configuration, a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from huggingface_hub import DatasetCard, HfApi, hf_hub_download
from huggingface_hub.utils import validate_repo_id

from ost_hf.data.example import RowError
from ost_hf.data.images import image_file
from ost_hf.data.pictures.files import Places, TypedCell, cells_in, picture_bytes
from ost_hf.data.reading.loading import file_columns, typed_cells, without_decoding
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError
from ost_hf.hub.card import render_card
from ost_hf.hub.config import HubConfig
from ost_hf.selection.marks import ON_ROWS
from ost_hf.tables.score_table import ScoreTable
from ost_hf.tables.selection_table import SelectionTable


def push_curated(pool: Rows, scores: ScoreTable, selection: SelectionTable, config: HubConfig) -> str:
    """Pushes the kept rows of a pool.

    Args:
        pool: The pool that was scored.
        scores: Its score table.
        selection: Its selection.
        config: The repository.

    Returns:
        The repository's full name.

    Raises:
        DataError: If the tables are not of this pool, or the selection not of these scores.
        ConfigError: If the Hub knows no such licence.
    """
    check_curated(pool, scores, selection, config)
    table = scores.read()
    kept = kept_dataset(pool, selection)
    repo_id = HfApi().create_repo(config.repo_id, repo_type="dataset", private=config.private, exist_ok=True).repo_id
    # The configurations' own metadata is written into the card by push_to_hub; the text joins it afterwards.
    # The split is named: a pool read as a slice is of a split like `train[:10%]`, which is no name on the Hub.
    kept.push_to_hub(repo_id, split="train", revision=config.revision)
    # Rows' vectors are a kilobyte each, say much of rows that are not kept, and nothing without the anchors'.
    told = table.drop_columns(["embedding"]) if "embedding" in table.column_names else table
    datasets.Dataset(told.replace_schema_metadata(None)).push_to_hub(
        repo_id, config_name="scores", split="train", revision=config.revision
    )
    # DatasetCard.load knows no revision: by a repository's name it would read the main branch's card.
    card = DatasetCard.load(hf_hub_download(repo_id, "README.md", repo_type="dataset", revision=config.revision))
    card.data.tags = sorted({*(card.data.get("tags") or []), "ost-hf", "data-selection"})
    if config.license is not None:
        card.data.license = config.license
    card.text = render_card(repo_id, table, selection, scores.manifest(), pool.config.path)
    card.push_to_hub(repo_id, repo_type="dataset", revision=config.revision, commit_message="Describe the selection")
    return repo_id


def check_curated(pool: Rows, scores: ScoreTable, selection: SelectionTable, config: HubConfig) -> None:
    """Raises for what :func:`push_curated` refuses before anything is pushed; the Hub is asked about the licence."""
    validate_repo_id(config.repo_id)
    _check_tables(pool, scores.read(), selection, scores.manifest())
    if config.license is not None:
        _check_license(config.license)


def _check_tables(pool: Rows, scores: pa.Table, selection: SelectionTable, manifest: dict[str, Any]) -> None:
    if pool.fingerprint != manifest["identity"]["pool"]:
        raise DataError(
            "the pool is not the one that was scored: its rows, their order or its id_column have changed since"
        )
    columns = ["example_id", "row"]
    if selection.metadata.settings.get("aggregate") is None:
        columns.append("utility")  # else one number was made of the groups' utilities: the scores have no such column
    is_selection = set(selection.table.column_names) >= {*columns, "utility", "rank", "kept"}
    if not is_selection or not selection.table.select(columns).equals(scores.select(columns)):
        raise DataError("the selection table was not made of these scores: run the select stage again")


def _check_license(name: str) -> None:
    """Asks the Hub before anything is pushed: by itself it would refuse the card when the rows are there already."""
    try:
        DatasetCard(f"---\nlicense: {name}\n---\n").validate()
    except ValueError as error:
        raise ConfigError(f"hub.license {name!r} is refused by the Hub: {error}") from error


def kept_dataset(pool: Rows, selection: SelectionTable) -> datasets.Dataset:
    """Kept rows in the pool's order, with ``example_id``, ``ost_utility``, ``ost_rank``, weights and masked turns."""
    records = {record["row"]: record for record in selection.table.to_pylist() if record["kept"]}
    rows = sorted(records)
    kept = _with_files(pool.dataset.select(rows), pool)
    columns = {
        "example_id": [records[row]["example_id"] for row in rows],
        "ost_utility": [records[row]["utility"] for row in rows],
        "ost_rank": [records[row]["rank"] for row in rows],
    }
    told = [name for name in ON_ROWS if name in selection.table.column_names]
    types = datasets.Features.from_arrow_schema(selection.table.select(told).schema)
    columns |= {ON_ROWS[name]: [records[row][name] for row in rows] for name in told}
    # A pool that was curated before brings such columns: they speak of another selection.
    kept = kept.remove_columns([name for name in (*columns, *ON_ROWS.values()) if name in kept.column_names])
    for name, values in columns.items():
        kept = kept.add_column(name, values, feature={ON_ROWS[each]: types[each] for each in told}.get(name))
    return kept


def _with_files(kept: datasets.Dataset, pool: Rows) -> datasets.Dataset:
    """All that the rows name by file, in the rows: on the Hub no one has those files.

    Raises:
        DataError: If a file may not be read, or cannot be. By itself ``datasets`` would push whatever a path names.
    """
    column = pool.images_column
    if column is not None and not file_columns(datasets.Features({column: kept.features[column]})):
        kept = _with_image_column(kept, pool, column)
    for name, feature in file_columns(kept.features).items():
        undecoded = without_decoding(kept, [name])
        cells = undecoded.with_format(None).select_columns(name)
        if any(_names_files(row[name]) for row in cells):
            filled = undecoded.map(_filled, fn_kwargs={"name": name, "feature": feature, "places": pool.places})
            kept = filled.cast_column(name, feature)
    return kept


def _with_image_column(kept: datasets.Dataset, pool: Rows, column: str) -> datasets.Dataset:
    """The column of images as such: a row may hold them as paths, as base64 or as numbers."""
    stored = kept.with_format(None).select_columns(column)
    is_list = any(isinstance(row[column], list) and not _is_one(row[column]) for row in stored)

    def place(row: dict[str, Any]) -> dict[str, Any]:
        cells = [_file(cell, pool.places, column) for cell in cells_in(row[column])]
        return {column: cells if is_list else next(iter(cells), None)}

    undecoded = datasets.Image(decode=False)
    of_files = datasets.Features({**kept.features, column: datasets.List(undecoded) if is_list else undecoded})
    placed = kept.map(place, features=of_files)
    return placed.cast_column(column, datasets.List(datasets.Image()) if is_list else datasets.Image())


def _is_one(cell: list[Any]) -> bool:
    """Whether a list is one picture, or the bytes of its file."""
    cells = cells_in(cell)
    return len(cells) == 1 and cells[0] is cell


def _filled(row: dict[str, Any], name: str, feature: Any, places: Places) -> dict[str, Any]:
    return {name: _fill(typed_cells(row[name], feature), places, name)}


def _fill(value: Any, places: Places, column: str) -> Any:
    if isinstance(value, TypedCell):
        return _file(value, places, column)
    if isinstance(value, dict):
        return {name: _fill(each, places, column) for name, each in value.items()}
    return [_fill(each, places, column) for each in value] if isinstance(value, list) else value


def _file(cell: Any, places: Places, column: str) -> dict[str, Any] | None:
    """A cell as ``datasets`` stores a file: its bytes, and the last part of its name."""
    if cell is None:
        return None
    try:
        data = picture_bytes(cell, places)
        if data is None:
            data, _ = image_file(cell, places)
    except RowError as error:
        raise DataError(
            f"column {column!r} of a kept row cannot be pushed: {error.detail}. Mend the row, or push a pool without "
            "the column"
        ) from error
    path = cell.get("path") if isinstance(cell, dict) else None
    more = cell if isinstance(cell, TypedCell) else {}
    return {**more, "bytes": data, "path": None if path is None else Path(path).name}


def _names_files(value: Any) -> bool:
    """Whether a cell, or one within it, has a path and no bytes."""
    if isinstance(value, dict) and set(value) >= {"bytes", "path"}:
        return value["bytes"] is None and value["path"] is not None
    within = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_names_files(each) for each in within)
