"""Scores that stand in the pool already: a column of numbers, higher is better.

For what another tool has computed (a reward model, ratings by people), and for an oracle in a study of known truth.
"""

from __future__ import annotations

from typing import Any

from ost_hf.data.encoding import Encoded, EncodedDataset
from ost_hf.errors import ConfigError, DataError
from ost_hf.scorers.base import NO_LIMIT, Score, register
from ost_hf.scorers.config import ScorerConfig


@register("column", needs=())
class ColumnScorer:
    """The utility is ``scoring.column`` of the row.

    Raises:
        ConfigError: If no column is named.
        DataError: If the pool has no such column, or it holds no numbers.
    """

    batch_size: int | None

    def __init__(self, config: ScorerConfig, pool: EncodedDataset, **unused: Any):
        if config.column is None:
            raise ConfigError("scorer 'column' needs scoring.column: the column of the pool that holds the scores")
        names = pool.rows.dataset.column_names
        if config.column not in names:
            raise DataError(f"scoring.column: the pool has no column {config.column!r}; there are: {', '.join(names)}")
        self.batch_size = config.batch_size
        self.batch_tokens = NO_LIMIT
        self._name = config.column
        self._values = list(pool.rows.dataset[config.column])
        wrong = next(
            (value for value in self._values if value is not None and not isinstance(value, (int, float))), None
        )
        if wrong is not None:
            raise DataError(f"scoring.column: {config.column!r} must hold numbers (or booleans), there is {wrong!r}")

    def score(self, batch: list[Encoded]) -> list[Score]:
        """The column's values; a row without one says so."""
        scores = []
        for row in batch:
            value = self._values[row.row]
            missing = Score(None, status="no_score", detail=f"column {self._name} is empty")
            scores.append(missing if value is None else Score(float(value)))
        return scores
