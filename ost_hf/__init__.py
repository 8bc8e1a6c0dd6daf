"""One-Step-Train data selection for the Hugging Face ecosystem.

    >>> import ost_hf
    >>> scores = ost_hf.score("pool.jsonl", "anchors.jsonl", proxy="Qwen/Qwen3-0.6B", output_dir="runs/a")
    >>> kept = ost_hf.select(scores, keep_ratio=0.3)
    >>> kept.rows("pool.jsonl")

What stands here is what people type; everything else is imported from its room, such as
``ost_hf.scoring.config.ScoringConfig``. Names are imported when they are first used, so that ``import ost_hf`` and
``ost-hf --help`` are quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ost_hf._version import __version__

if TYPE_CHECKING:
    from ost_hf.curate import score, select
    from ost_hf.data.config import DatasetConfig
    from ost_hf.data.rows import Rows
    from ost_hf.hub.push import push_curated
    from ost_hf.scorers.registry import register
    from ost_hf.selection.kept import Selection
    from ost_hf.tables.score_table import ScoreTable
    from ost_hf.training.config import OSTConfig
    from ost_hf.training.sampler import OSTSampler
    from ost_hf.training.trainer import OSTTrainer
    from ost_hf.training.trl import OSTSFTConfig, OSTSFTTrainer

_HOMES = {
    "DatasetConfig": "data.config",
    "OSTConfig": "training.config",
    "OSTSFTConfig": "training.trl",
    "OSTSFTTrainer": "training.trl",
    "OSTSampler": "training.sampler",
    "OSTTrainer": "training.trainer",
    "Rows": "data.rows",
    "ScoreTable": "tables.score_table",
    "Selection": "selection.kept",
    "load_curated": "hub.load",
    "push_curated": "hub.push",
    "register": "scorers.registry",
    "score": "curate",
    "select": "curate",
}

__all__ = [
    "DatasetConfig",
    "OSTConfig",
    "OSTSFTConfig",
    "OSTSFTTrainer",
    "OSTSampler",
    "OSTTrainer",
    "Rows",
    "ScoreTable",
    "Selection",
    "__version__",
    "load_curated",
    "push_curated",
    "register",
    "score",
    "select",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
