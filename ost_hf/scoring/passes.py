"""What selection costs in passes: the unit, the arithmetic, and the words. Standard library only.

One *pass*, F, is a forward pass of the proxy over the pool. What is counted is rows, whatever their length; N is the
number of rows of the pool that got a score:

    forward pass of a row               1/N F
    update of all weights on a row      3/N F   a backward pass forms gradients of activations and of weights, and
                                                each takes as many products as the forward pass (Kaplan et al. 2020,
                                                arXiv 2001.08361, section 2.1)
    update of an adapter on a row       2/N F   without the gradients of the frozen weights
    row scored by a scorer              its ``passes`` (:class:`ost_hf.scorers.protocol.Scorer`): 2/N F by estimators
                                        ``reverse`` and ``forward``, (2 + anchors)/N F by ``exact``
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

FULL_UPDATE = 3
ADAPTER_UPDATE = 2

# The parts of a scoring run, in the order in which they are told.
PARTS = {
    "warm_up": "warm-up",
    "set_up": "set-up",
    "anchors": "anchors",
    "scoring": "scoring",
    "first": "first look",
    "agreement": "agreement with full scores",
    "exact": "exact steps",
    "second_look_training": "second look's training",
    "second_look_asking": "second look's judging",
    "trial_batches": "trial batches",
    "encoding": "encoding",
    "other": "other work",
}


@dataclass
class Part:
    """What one part of a scoring run took.

    Attributes:
        row_passes: Forward passes of single rows, or what costs as much; ``None`` where a scorer does not say.
        seconds: On the clock of the main process.
        trainings: Models trained.
        steps: Steps of these trainings together.
    """

    row_passes: float | None = 0.0
    seconds: float = 0.0
    trainings: int = 0
    steps: int = 0

    def add(self, other: Part) -> None:
        """Adds what another process counted, or another run."""
        known = self.row_passes is not None and other.row_passes is not None
        self.row_passes = (self.row_passes or 0) + (other.row_passes or 0) if known else None
        self.seconds += other.seconds
        self.trainings += other.trainings
        self.steps += other.steps


def cost_of_parts(parts: Mapping[str, Part], rows: int) -> dict[str, Any]:
    """What parts come to, as the manifest holds it.

    Args:
        parts: By name, as in :data:`PARTS`.
        rows: N, rows of the pool that got a score.

    Returns:
        ``rows``; ``passes``, ``seconds``, ``trainings`` and ``steps`` of all parts together; and ``parts``: the same of
        each, with ``row_passes``, which is N times ``passes``. ``passes`` is ``None`` where a scorer does not say.
    """
    total = Part()
    for part in parts.values():
        total.add(part)
    # After ours those of a user's own second stage.
    named = {name: _record(parts[name], rows) for name in dict.fromkeys([*PARTS, *parts]) if name in parts}
    return {"rows": rows, **_record(total, rows), "parts": named}


def _record(part: Part, rows: int) -> dict[str, Any]:
    passes = None if part.row_passes is None else part.row_passes / max(1, rows)
    return {"passes": passes, **asdict(part)}


def cost_in_words(cost: Mapping[str, Any], begin: str = "selection cost") -> str:
    """One line of a cost.

    Args:
        cost: As :func:`cost_of_parts` gives it. Without ``seconds`` only passes are told.
        begin: What was or will be paid.
    """
    time = f" and {_seconds(cost['seconds'])}" if cost["seconds"] else ""
    if cost["passes"] is None:
        unknown = [PARTS.get(name, name) for name, part in cost["parts"].items() if part["passes"] is None]
        return (
            f"{begin} {_seconds(cost['seconds'])}; its forward passes of the proxy are not known, for the scorer does "
            f"not say what a row takes ({', '.join(unknown)})"
        )
    told = {PARTS.get(name, name): part for name, part in cost["parts"].items() if part["passes"]}
    each = [f"{name} {_number(part['passes'])}{_trained(part)}" for name, part in told.items()]
    if not each:
        return f"{begin} no forward pass of the proxy{time}"
    return f"{begin} {_number(cost['passes'])} forward passes of the proxy over the pool{time}: {', '.join(each)}"


def _trained(part: Mapping[str, Any]) -> str:
    """Trainings and steps in brackets, of a part that has some."""
    if not part["trainings"]:
        return ""
    trainings = f"{part['trainings']} trainings, " if part["trainings"] > 1 else ""
    return f" ({trainings}{part['steps']:,} steps)"


def _number(passes: float) -> str:
    return f"{passes:.1f}".removesuffix(".0") if passes >= 1 else f"{passes:.2g}"


def _seconds(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 10 * length:
            return f"{math.ceil(seconds / length):,} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
