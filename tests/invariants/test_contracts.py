"""The import contracts speak of everything that there is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ost_hf.scorers.registry import SCORERS
from ost_hf.scoring.second_stages import SECOND_STAGES

ROOT = Path(__file__).parents[2]


def _modules_of(name: str) -> set[str]:
    tomllib: Any = pytest.importorskip("tomllib") if sys.version_info >= (3, 11) else pytest.importorskip("tomli")
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return set(next(contract["modules"] for contract in contracts if contract["name"] == name))


def test_every_scorer_is_kept_apart_from_the_others() -> None:
    assert _modules_of("Scorers do not know one another") == {f"ost_hf.scorers.{name}" for name in SCORERS.names()}


def test_every_second_stage_is_kept_apart_from_the_others() -> None:
    assert _modules_of("Second stages do not know one another") == {
        f"ost_hf.scoring.{name}" for name in SECOND_STAGES.names()
    }
