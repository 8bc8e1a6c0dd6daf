"""The text of a curated dataset's card: what was done, from the manifest and the selection table's metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, StrictUndefined

from ost_hf.errors import ConfigError
from ost_hf.scorers.registry import PROXY, SCORERS
from ost_hf.scoring.passes import cost_in_words
from ost_hf.tables.selection_table import SelectionTable

TEMPLATE = Path(__file__).parent / "dataset_card.md.jinja"

UTILITY_TEXTS = {
    "mean_cosine": "mean over the anchors of the cosine between the row's and the anchor's preconditioned gradients",
    "raw": "drop of the mean anchor loss after one step on the row, in nats per token",
    "raw_per_sample": "drop of the mean anchor loss after one step on the row, times the row's supervised tokens",
    "per_gradient_norm": "drop of the mean anchor loss after one step on the row, over the norm of the row's gradient",
    "relative": "drop of the mean anchor loss after one step on the row, over the row's own loss",
}


def render_card(
    repo_id: str, scores: pa.Table, selection: SelectionTable, manifest: dict[str, Any], source: str
) -> str:
    """The card's text, without its YAML head.

    Args:
        repo_id: The repository's full name.
        scores: The score table.
        selection: The selection.
        manifest: The score table's manifest.
        source: Where the pool was read from.
    """
    identity = manifest["identity"]
    scoring = identity["scoring"]
    options = scoring.get(scoring["scorer"], {})
    kept = selection.kept
    statuses = scores["status"].value_counts().to_pylist()
    template = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    return template.from_string(TEMPLATE.read_text()).render(
        repo_id=repo_id,
        source=_public_name(source),
        kept_rows=len(kept),
        pool_rows=len(selection),
        lowest=pc.min(kept["utility"]).as_py(),
        median=pc.quantile(kept["utility"], 0.5)[0].as_py(),
        highest=pc.max(kept["utility"]).as_py(),
        statuses=sorted(statuses, key=lambda status: -status["counts"]),
        scoring=scoring,
        options=options,
        stage=scoring.get(scoring["second_stage"], {}) if scoring["second_stage"] else {},
        utility_text=UTILITY_TEXTS.get(options.get("utility", "")),
        uses_proxy=_uses_proxy(scoring["scorer"]),
        public_name=_public_name,
        selection=dict(selection.metadata.settings),
        explanation=selection.explanation,
        proxy=identity["proxy"],
        proxy_name=_public_name(identity["proxy"]["model"]),
        versions=manifest["versions"],
        cost=_cost(manifest),
    )


def _cost(manifest: dict[str, Any]) -> str | None:
    """What the scores cost; nothing where the proxy made no passes, or it is not known how many."""
    cost = manifest.get("cost")
    return cost_in_words(cost, "").strip() if cost is not None and cost["passes"] else None


def _uses_proxy(scorer: str) -> bool:
    try:
        return PROXY in SCORERS.find(scorer).needs
    except ConfigError:  # one of the user's own that this process did not import: nothing is known, nothing is said
        return False


def _public_name(name: str) -> str:
    """A name on the Hub as it is; of a local path the last part, since a card shows no one's folders."""
    path = Path(name).expanduser()
    return path.resolve().name if path.is_absolute() or path.exists() else name
