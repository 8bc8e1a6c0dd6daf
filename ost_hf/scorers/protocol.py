"""What a scorer is: it gives candidates numbers, a batch at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from ost_hf.data.encoding.encoded import Encoded
from ost_hf.errors import ConfigError
from ost_hf.tables.columns import OF_THE_ROW, Columns
from ost_hf.tables.statuses import NON_FINITE, OK

# Tokens at once for a scorer that does not care.
NO_LIMIT = 2**62

# What the table knows of a row without its scorer, and what a scorer may say in words.
_TEXTS = ("status", "detail")


@dataclass
class Score:
    """What a scorer says of one candidate, where it speaks of candidates one by one.

    ``columns`` become further columns of the score table; a list of numbers becomes a list column. A scorer that cannot
    judge a candidate says why in ``status`` and ``detail`` and leaves ``utility`` empty: no invented number.
    """

    utility: float | None
    loss: float | None = None
    utility_se: float | None = None
    columns: dict[str, float | list[float]] = field(default_factory=dict)
    status: str = OK
    detail: str = ""


# One score for each row (a number alone is a utility), or columns of one entry for each row, ``utility`` among them.
Scores = Sequence["Score | float"] | Mapping[str, Any]


class Scorer(Protocol):
    """Gives candidates numbers, higher is better.

    A score must depend on the candidate alone: not on its neighbours in the batch, their order, or the
    process that computes it.

    A scorer may also have ``facts``, a dictionary of what it found out about how it can score, for the manifest; and a
    method ``of_anchors(columns)``, which is given the columns of the anchors, scored as candidates, and gives those
    that are kept of them (:mod:`ost_hf.tables.anchor_table`).

    For the cost of a run, a scorer may say its ``passes``: how many forward passes of the proxy, or what costs as much,
    it makes of a row that it scores; and ``setup_passes``: how many of a row it made before. Of a scorer without
    ``passes`` the cost is not known.
    """

    # How many candidates `score` takes at once; `None` for any number.
    batch_size: int | None
    # How many tokens, padding included. A scorer without this attribute does not care.
    batch_tokens: int

    def score(self, batch: list[Encoded]) -> Scores:
        """Scores candidates that could be encoded.

        Args:
            batch: At most ``batch_size`` encoded rows of at most ``batch_tokens`` tokens, or a single one.

        Returns:
            One score per row, in order; or columns. A row whose score is not finite is reported as such.
        """
        ...


def columns_of(scorer: Scorer, batch: list[Encoded]) -> Columns:
    """What a scorer says of a batch, as columns.

    Raises:
        ConfigError: If it does not speak of every row.
    """
    columns = as_columns(scorer.score(batch))
    counts = {name: len(values) if values.ndim else 0 for name, values in columns.items()}
    if counts.get("utility") is None or set(counts.values()) != {len(batch)}:
        raise ConfigError(
            f"{type(scorer).__name__}.score must give a number or a Score for each row, or columns of as many entries, "
            f"'utility' among them; for a batch of {len(batch)} it gave {counts}"
        )
    for name, values in columns.items():
        if name in OF_THE_ROW or (values.dtype.kind in "US" and name not in _TEXTS):
            raise ConfigError(
                f"{type(scorer).__name__}.score gave a column {name!r} that "
                f"{'the table has already' if name in OF_THE_ROW else 'holds no numbers'}: name it otherwise, or put "
                "words into 'detail'"
            )
    return columns


def as_columns(scores: Scores) -> Columns:
    """Scores of a batch as columns, ``[B]`` or ``[B, k]`` each."""
    if isinstance(scores, Mapping):
        return {name: _as_array(values) for name, values in scores.items()}
    each = [score if isinstance(score, Score) else Score(float(score)) for score in scores]
    columns: dict[str, np.ndarray] = {"utility": _numbers([score.utility for score in each])}
    said = [_status_of(score) for score in each]
    columns["status"] = np.array([status for status, _ in said], dtype=object)
    columns["detail"] = np.array([detail for _, detail in said], dtype=object)
    for name in ("loss", "utility_se"):
        if any(getattr(score, name) is not None for score in each):
            columns[name] = _numbers([getattr(score, name) for score in each])
    for name in {name: None for score in each for name in score.columns}:
        columns[name] = _stacked([score.columns.get(name) for score in each])
    return columns


def _status_of(score: Score) -> tuple[str, str]:
    """Status and detail: a loss may be missing where there are others, but one that is not finite is wrong."""
    if score.status == OK and score.loss is not None and not np.isfinite(score.loss):
        return NON_FINITE, f"utility {score.utility}, loss {score.loss}"
    return score.status, score.detail


def _as_array(values: Any) -> np.ndarray:
    if not isinstance(values, torch.Tensor):
        return np.asarray(values)
    # NumPy has no bfloat16.
    return (values.float() if values.dtype == torch.bfloat16 else values).detach().cpu().numpy()


def _numbers(values: list[Any]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _stacked(values: list[Any]) -> np.ndarray:
    """Numbers ``[B]``, or vectors ``[B, k]`` with NaN for a row without one."""
    vector = next((value for value in values if isinstance(value, (list, np.ndarray))), None)
    if vector is None:
        return _numbers(values)
    empty = np.full(len(vector), np.nan, dtype=np.float32)
    return np.stack([empty if value is None else np.asarray(value, dtype=np.float32) for value in values])
