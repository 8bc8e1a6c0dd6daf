"""What arms cost. A scoring that was interrupted and went on has no known cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Record = dict[str, Any]

SELECTING, TRAINING = ("score", "select"), ("train",)


def seconds_of(result: Record, stages: tuple[str, ...]) -> float | None:
    """Seconds of some stages together; ``None`` if one of them is not known."""
    parts = [result["seconds"][stage] for stage in stages]
    return None if None in parts else sum(parts)


def known_of_some(results: Iterable[Record]) -> dict[tuple[int, int], list[str]]:
    """Methods whose cost is not known of all their seeds.

    Args:
        results: Trained arms of one setting, keep ratio and protocol.

    Returns:
        Methods by how many of their seeds have a known cost, of how many: ``{(9, 10): ["less"]}``.
    """
    costs: dict[str, list[float | None]] = {}
    for result in results:
        costs.setdefault(result["method"], []).append(seconds_of(result, SELECTING + TRAINING))
    found: dict[tuple[int, int], list[str]] = {}
    for method, values in costs.items():
        known = sum(value is not None for value in values)
        if known < len(values):
            found.setdefault((known, len(values)), []).append(method)
    return found
