"""Scores that stand in the pool already: a column of numbers, higher is better.

For what another tool has computed (a reward model, ratings by people), and for an oracle in a study of known truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import Encoded
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, DataError
from ost_hf.scorers.protocol import NO_LIMIT, Score
from ost_hf.scorers.registry import register
from ost_hf.settings import remembers_given


@remembers_given
@dataclass(frozen=True)
class ColumnOptions:
    """Which column."""

    name: str | None = field(default=None, metadata={"help": "the pool's column of numbers, higher is better"})

    def check(self, config: Any) -> None:
        """Raises ``ConfigError`` if no column is named."""
        if self.name is None:
            raise ConfigError("scorer 'column' needs scoring.column.name: the column of the pool that holds the scores")

    def of_pool(self, pool: Rows) -> Mapping[str, Any]:
        """What the scores depend on beside what a model reads: the column's values.

        Raises:
            DataError: If the pool has no such column, or it holds no numbers: said here, before anything is written.
        """
        assert self.name is not None
        _numbers(pool, self.name)
        return {"column_digest": pool.column_digest(self.name)}


@register("column", options=ColumnOptions, columns={})
class ColumnScorer:
    """The utility is the number in the row's column.

    Raises:
        DataError: If the pool has no such column, or it holds no numbers.
    """

    batch_size: int | None
    passes = 0

    def __init__(self, config: Any, options: ColumnOptions, pool: EncodedDataset, **unused: Any):
        assert options.name is not None
        self.batch_size = config.batch_size
        self.batch_tokens = NO_LIMIT
        self._name = options.name
        self._values = _numbers(pool.rows, options.name)

    def score(self, batch: list[Encoded]) -> list[Score]:
        """The column's values; a row without one says so."""
        missing = Score(None, status="no_score", detail=f"column {self._name} is empty")
        values = (self._values[row.row] for row in batch)
        return [missing if value is None else Score(float(value)) for value in values]


def _numbers(pool: Rows, name: str) -> list[Any]:
    """The values of a column; ``DataError`` if there is none of that name, or one is neither a number nor empty."""
    names = pool.dataset.column_names
    if name not in names:
        raise DataError(f"scoring.column.name: the pool has no column {name!r}; there are: {', '.join(names)}")
    values = list(pool.dataset[name])
    wrong = next((value for value in values if value is not None and not isinstance(value, (int, float))), None)
    if wrong is not None:
        raise DataError(f"scoring.column.name: {name!r} must hold numbers (or booleans), there is {wrong!r}")
    return values
