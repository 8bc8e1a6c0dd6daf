"""One-Step-Train data selection for the Hugging Face ecosystem.

Names are imported when they are first used, so that ``import ost_hf`` and ``ost-hf --help`` are quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ost_hf._version import __version__

if TYPE_CHECKING:
    from ost_hf.data.anchors import load_anchors
    from ost_hf.data.collator import Collator
    from ost_hf.data.config import AnchorConfig, DatasetConfig, EncodingConfig
    from ost_hf.data.encoding import EncodedDataset, Encoder
    from ost_hf.data.rows import Rows
    from ost_hf.duplicates.config import DuplicatesConfig
    from ost_hf.errors import ConfigError, DataError, ModelError, OSTError, RunDirectoryError
    from ost_hf.evaluation.config import EvaluationConfig
    from ost_hf.evaluation.evaluator import evaluate_model
    from ost_hf.evaluation.metric import exact_match_path, load_exact_match, make_compute_metrics
    from ost_hf.functional.step import AdamState, UpdateRule
    from ost_hf.hub.config import HubConfig
    from ost_hf.hub.push import push_curated
    from ost_hf.models import ModelConfig, TargetConfig, load_model, load_processing_class
    from ost_hf.proxy.config import ProxyConfig
    from ost_hf.proxy.model import Proxy, build_proxy, load_proxy, save_proxy
    from ost_hf.proxy.warmup import warm_up
    from ost_hf.scorers.base import SCORERS, Score, Scorer, register
    from ost_hf.scoring.config import ScoringConfig
    from ost_hf.scoring.runner import score_pool
    from ost_hf.selection.config import SelectionConfig
    from ost_hf.selection.selector import read_selection, select, write_selection
    from ost_hf.tables.score_table import ScoreTable
    from ost_hf.training.config import OSTConfig
    from ost_hf.training.sampler import OSTSampler
    from ost_hf.training.trainer import OSTTrainer
    from ost_hf.training.trl import OSTSFTConfig, OSTSFTTrainer

_HOMES = {
    "AdamState": "functional.step",
    "AnchorConfig": "data.config",
    "Collator": "data.collator",
    "ConfigError": "errors",
    "DataError": "errors",
    "DatasetConfig": "data.config",
    "DuplicatesConfig": "duplicates.config",
    "EncodedDataset": "data.encoding",
    "Encoder": "data.encoding",
    "EncodingConfig": "data.config",
    "EvaluationConfig": "evaluation.config",
    "HubConfig": "hub.config",
    "ModelConfig": "models",
    "ModelError": "errors",
    "OSTConfig": "training.config",
    "OSTError": "errors",
    "OSTSFTConfig": "training.trl",
    "OSTSFTTrainer": "training.trl",
    "OSTSampler": "training.sampler",
    "OSTTrainer": "training.trainer",
    "Proxy": "proxy.model",
    "ProxyConfig": "proxy.config",
    "Rows": "data.rows",
    "RunDirectoryError": "errors",
    "SCORERS": "scorers.base",
    "Score": "scorers.base",
    "ScoreTable": "tables.score_table",
    "Scorer": "scorers.base",
    "ScoringConfig": "scoring.config",
    "SelectionConfig": "selection.config",
    "TargetConfig": "models",
    "UpdateRule": "functional.step",
    "build_proxy": "proxy.model",
    "evaluate_model": "evaluation.evaluator",
    "exact_match_path": "evaluation.metric",
    "load_anchors": "data.anchors",
    "load_exact_match": "evaluation.metric",
    "load_model": "models",
    "load_processing_class": "models",
    "load_proxy": "proxy.model",
    "make_compute_metrics": "evaluation.metric",
    "push_curated": "hub.push",
    "read_selection": "selection.selector",
    "register": "scorers.base",
    "save_proxy": "proxy.model",
    "score_pool": "scoring.runner",
    "select": "selection.selector",
    "warm_up": "proxy.warmup",
    "write_selection": "selection.selector",
}

__all__ = [
    "SCORERS",
    "AdamState",
    "AnchorConfig",
    "Collator",
    "ConfigError",
    "DataError",
    "DatasetConfig",
    "DuplicatesConfig",
    "EncodedDataset",
    "Encoder",
    "EncodingConfig",
    "EvaluationConfig",
    "HubConfig",
    "ModelConfig",
    "ModelError",
    "OSTConfig",
    "OSTError",
    "OSTSFTConfig",
    "OSTSFTTrainer",
    "OSTSampler",
    "OSTTrainer",
    "Proxy",
    "ProxyConfig",
    "Rows",
    "RunDirectoryError",
    "Score",
    "ScoreTable",
    "Scorer",
    "ScoringConfig",
    "SelectionConfig",
    "TargetConfig",
    "UpdateRule",
    "__version__",
    "build_proxy",
    "evaluate_model",
    "exact_match_path",
    "load_anchors",
    "load_exact_match",
    "load_model",
    "load_processing_class",
    "load_proxy",
    "make_compute_metrics",
    "push_curated",
    "read_selection",
    "register",
    "save_proxy",
    "score_pool",
    "select",
    "warm_up",
    "write_selection",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
