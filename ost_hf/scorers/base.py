"""The ``Scorer`` protocol and the registry that a new scorer joins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ost_hf.data.encoding import Encoded
from ost_hf.errors import ConfigError, unknown_key

# Tokens at once for a scorer that does not care.
NO_LIMIT = 2**62


@dataclass
class Score:
    """What a scorer says of one candidate.

    ``columns`` become further columns of the score table; ``sketch``, and ``anchor_utilities`` or
    ``anchor_similarities`` (one for each anchor, in the anchors' order) become list columns. Below zero a utility says
    that the row hurts, a similarity nothing of the kind. A scorer that cannot judge a candidate says why in ``status``
    and ``detail`` and leaves ``utility`` empty: no invented number.
    """

    utility: float | None
    loss: float | None = None
    utility_se: float | None = None
    columns: dict[str, float] = field(default_factory=dict)
    sketch: list[float] | None = None
    anchor_utilities: list[float] | None = None
    anchor_similarities: list[float] | None = None
    status: str = "ok"
    detail: str = ""


class Scorer(Protocol):
    """Gives candidates numbers, higher is better.

    A score must depend on the candidate alone: not on its neighbours in the batch, their order, or the
    process that computes it.
    """

    # How many candidates `score` takes at once; `None` for any number.
    batch_size: int | None
    # How many tokens, padding included. A scorer without this attribute does not care.
    batch_tokens: int
    # A scorer may also have `facts`: a dictionary of what it found out about how it can score, for the manifest.

    def score(self, batch: list[Encoded]) -> list[Score]:
        """Scores candidates that could be encoded.

        Args:
            batch: At most ``batch_size`` encoded rows of at most ``batch_tokens`` tokens, or a single one.

        Returns:
            One score per row, in order. A score that is not finite is reported as the row's status.
        """
        ...


# What a scorer may ask for beside its configuration and the pool.
PROXY, ANCHORS = "proxy", "anchors"


@dataclass(frozen=True)
class Registered:
    """How to build a scorer, and what it needs: a warm ``proxy``, the encoded ``anchors``."""

    build: Callable[..., Scorer]
    needs: frozenset[str]


SCORERS: dict[str, Registered] = {}


def register(
    name: str, needs: Iterable[str] = (PROXY, ANCHORS)
) -> Callable[[Callable[..., Scorer]], Callable[..., Scorer]]:
    """Adds a scorer under ``name``.

    The decorated callable builds it and is called with keywords: ``config``, ``pool`` (the candidates, encoded),
    ``exclude`` (rows of the pool that must not be trained on), ``folder`` (the score table's, for what the scorer
    wants to find again), and what it ``needs``. It should take ``**unused`` for whatever else is there.

    Args:
        name: What ``scoring.scorer`` says.
        needs: ``proxy``, ``anchors``, both or none. What is not needed is not made.
    """

    def add(build: Callable[..., Scorer]) -> Callable[..., Scorer]:
        SCORERS[name] = Registered(build, frozenset(needs))
        return build

    return add


def find_scorer(name: str) -> Registered:
    """The scorer registered under ``name``.

    Raises:
        ConfigError: If there is none of that name.
    """
    # The built-in scorers register themselves when they are imported.
    from ost_hf.scorers import column, ifd, length, perplexity, random, rds  # noqa: F401

    if name not in SCORERS:
        raise ConfigError(unknown_key("scorer", name, SCORERS))
    return SCORERS[name]


def build_scorer(name: str, **what_it_may_use: Any) -> Scorer:
    """Builds the scorer registered under ``name``.

    Raises:
        ConfigError: If there is none of that name.
    """
    return find_scorer(name).build(**what_it_may_use)
