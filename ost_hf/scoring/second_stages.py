"""Second stages by name: what looks at rows again after a scorer, reads the first table and adds columns.

Ours are folders of this package, each named like its stage. One of one's own is a class under :func:`second_stage`, in
a file that ``scoring.imports`` names. Standard library only: ``--help`` reads this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ost_hf.registry import Registry
from ost_hf.scorers.registry import NoOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from ost_hf.scoring.job import ScoringJob
    from ost_hf.scoring.side_tables import Build
    from ost_hf.tables.score_table import ScoreTable


class SecondStage(Protocol):
    """Adds columns to a score table.

    A stage may also have ``check(job, proxy)``, which raises before the first row is scored for what would stop it
    later; and ``cost(job, rows)``, which tells the doctor what it would take (:class:`ost_hf.scoring.cost.StageCost`).
    One that stores what it was asked may have ``again(job, first)``: as ``run``, for a job that reuses an earlier run.
    Its options may have ``check(config)``, for what does not go together in the ``scoring`` section, and
    ``at_cut(keep_ratio, other_cuts)``, which gives them with what they need to know of how much will be kept.
    """

    def run(self, job: ScoringJob, first: ScoreTable, build: Build) -> pa.Table:
        """Looks at the rows again; called on every process of a run, and resumable.

        Args:
            job: What is scored.
            first: The complete table of the scorer.
            build: Makes a scorer like the first table's, of another configuration.

        Returns:
            ``row`` and the columns to add, for some rows or all; what is not null in a column that the first table has
            too replaces what stands there.
        """
        ...


@dataclass(frozen=True)
class RegisteredStage:
    """How to make a second stage, the dataclass of its section ``scoring.NAME``, and the columns that it adds.

    ``turn_columns`` are those that it adds where ``scoring.per_turn`` is set.
    """

    make: Callable[[], SecondStage]
    options: type
    columns: set[str]
    turn_columns: set[str]


SECOND_STAGES: Registry[RegisteredStage] = Registry(
    "second stage", "ost_hf.scoring", entry_points="ost_hf.second_stages"
)


def second_stage(
    name: str, options: type = NoOptions, columns: Iterable[str] = (), turn_columns: Iterable[str] = ()
) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Adds a second stage under ``name``.

    Args:
        name: What ``scoring.second_stage`` says.
        options: A dataclass whose fields have a ``help`` text in their metadata; its values are ``scoring.NAME``.
        columns: The columns that it adds.
        turn_columns: Those that it adds where ``scoring.per_turn`` is set.
    """

    def add(make: Callable[[], Any]) -> Callable[[], Any]:
        SECOND_STAGES.add(name, RegisteredStage(make, options, set(columns), set(turn_columns)))
        return make

    return add
