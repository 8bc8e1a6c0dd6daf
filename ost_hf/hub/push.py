"""Pushes a curated dataset: kept rows with utilities, the score table as a second configuration, a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from huggingface_hub import DatasetCard, HfApi, hf_hub_download
from huggingface_hub.utils import validate_repo_id

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
    kept = _with_images(pool.dataset.select(rows), pool)
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


def _with_images(kept: datasets.Dataset, pool: Rows) -> datasets.Dataset:
    """Images that the pool names by file, as images: on the Hub no one has those files."""
    column = pool.images_column
    if column is None:
        return kept
    feature = kept.features[column]
    is_list = isinstance(feature, (datasets.List, datasets.LargeList))
    # pandas' files come with large strings.
    if getattr(feature.feature if is_list else feature, "dtype", None) not in ("string", "large_string"):
        return kept
    folder = pool.folder or Path()

    def place(name: Any) -> Any:
        if name is None:  # a row of text among rows with images
            return None
        return [place(one) for one in name] if isinstance(name, list) else str(folder / name)

    placed = kept.map(lambda row: {column: place(row[column])})
    return placed.cast_column(column, datasets.List(datasets.Image()) if is_list else datasets.Image())
