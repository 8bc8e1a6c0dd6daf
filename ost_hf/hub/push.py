"""Pushes a curated dataset: kept rows with utilities, the score table as a second configuration, a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub import DatasetCard, HfApi
from jinja2 import Environment, StrictUndefined

from ost_hf.data.rows import Rows
from ost_hf.errors import DataError
from ost_hf.hub.config import HubConfig

TEMPLATE = Path(__file__).parent / "dataset_card.md.jinja"


def push_curated(
    pool: Rows, scores: pa.Table, selection: pa.Table, manifest: dict[str, Any], config: HubConfig
) -> str:
    """Pushes the kept rows of a pool.

    Args:
        pool: The pool that was scored.
        scores: Its score table.
        selection: Its selection table.
        manifest: The score table's manifest, for the card.
        config: The repository.

    Returns:
        The repository's full name.

    Raises:
        DataError: If the tables are not of this pool.
    """
    if pool.fingerprint != manifest["identity"]["pool"]:
        raise DataError("the pool is not the one that was scored: its rows or their order have changed since")
    kept = kept_dataset(pool, selection)
    repo_id = HfApi().create_repo(config.repo_id, repo_type="dataset", private=config.private, exist_ok=True).repo_id
    # The configurations' own metadata is written into the card by push_to_hub; the text joins it afterwards.
    kept.push_to_hub(repo_id, revision=config.revision)
    table = datasets.Dataset(pa.table(scores))
    table.push_to_hub(repo_id, config_name="scores", revision=config.revision)
    card = DatasetCard.load(repo_id)
    card.data.tags = sorted({*(card.data.tags or []), "ost-hf", "data-selection"})
    if config.license is not None:
        card.data.license = config.license
    card.text = render_card(repo_id, scores, selection, manifest, pool.config.path)
    card.push_to_hub(repo_id, repo_type="dataset", revision=config.revision, commit_message="Describe the selection")
    return repo_id


def kept_dataset(pool: Rows, selection: pa.Table) -> datasets.Dataset:
    """The kept rows in the pool's order, with ``example_id``, ``ost_utility`` and ``ost_rank``."""
    records = {record["row"]: record for record in selection.to_pylist() if record["kept"]}
    rows = sorted(records)
    kept = pool.dataset.select(rows)
    columns = {
        "example_id": [records[row]["example_id"] for row in rows],
        "ost_utility": [records[row]["utility"] for row in rows],
        "ost_rank": [records[row]["rank"] for row in rows],
    }
    for name, values in columns.items():
        # A pool that was curated before brings such columns: they speak of another selection.
        if name in kept.column_names:
            kept = kept.remove_columns(name)
        kept = kept.add_column(name, values)
    return kept


def render_card(
    repo_id: str, scores: pa.Table, selection: pa.Table, manifest: dict[str, Any], source: str
) -> str:
    """The card's text, without its YAML head."""
    identity = manifest["identity"]
    kept = selection.filter(pc.field("kept"))
    statuses = scores["status"].value_counts().to_pylist()
    template = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    return template.from_string(TEMPLATE.read_text()).render(
        repo_id=repo_id,
        source=source,
        kept_rows=len(kept),
        pool_rows=len(selection),
        lowest=pc.min(kept["utility"]).as_py(),
        median=pc.quantile(kept["utility"], 0.5)[0].as_py(),
        highest=pc.max(kept["utility"]).as_py(),
        statuses=sorted(statuses, key=lambda status: -status["counts"]),
        scoring=identity["scoring"],
        proxy=identity["proxy"],
        versions=manifest["versions"],
    )
