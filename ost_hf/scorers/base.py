"""The ``Scorer`` protocol and the registry that a new scorer joins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ost_hf.data.encoding import Encoded
from ost_hf.errors import ConfigError, unknown_key


@dataclass
class Score:
    """What a scorer says of one candidate. ``columns`` become further columns of the score table."""

    utility: float
    loss: float | None = None
    utility_se: float | None = None
    columns: dict[str, float] = field(default_factory=dict)


class Scorer(Protocol):
    """Gives candidates numbers, higher is better.

    A score must depend on the candidate alone: not on its neighbours in the batch, their order, or the
    process that computes it.
    """

    # How many candidates `score` takes at once.
    batch_size: int

    def score(self, batch: list[Encoded]) -> list[Score]:
        """Scores candidates that could be encoded.

        Args:
            batch: At most ``batch_size`` encoded rows.

        Returns:
            One score per row, in order. A score that is not finite is reported as the row's status.
        """
        ...


SCORERS: dict[str, Callable[..., Scorer]] = {}


def register(name: str) -> Callable[[Callable[..., Scorer]], Callable[..., Scorer]]:
    """Adds a scorer under ``name``; the decorated callable builds it."""

    def add(build: Callable[..., Scorer]) -> Callable[..., Scorer]:
        SCORERS[name] = build
        return build

    return add


def build_scorer(name: str, **what_it_may_use: Any) -> Scorer:
    """Builds the scorer registered under ``name``.

    Raises:
        ConfigError: If there is none of that name.
    """
    # The built-in scorers register themselves when they are imported.
    from ost_hf.scorers import one_step, random  # noqa: F401

    if name not in SCORERS:
        raise ConfigError(unknown_key("scorer", name, SCORERS))
    return SCORERS[name](**what_it_may_use)
