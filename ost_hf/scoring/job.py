"""What is to be scored: asked for as rows and configurations, then opened as encoded rows and a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ost_hf.data.config import EncodingConfig
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.rows import Rows
from ost_hf.duplicates.config import DuplicatesConfig
from ost_hf.duplicates.policy import Excluded
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.reused import Reused
from ost_hf.tables.score_table import ScoreTable


@dataclass(frozen=True)
class ScoringRequest:
    """Which pool to score, by what, where.

    Attributes:
        run_dir: The run directory; scores go into ``scores``, the proxy into ``proxy``.
        pool: The candidates.
        anchors: The anchor set; only a scorer that asks no anchors does without.
        proxy: The proxy and its warm-up.
        scoring: The scorer and the loop.
        encoding: How rows become tokens.
        duplicates: What is done about rows that repeat another.
        evaluation: The sets that the target will be evaluated on, to be held against the pool.
        strategy: The strategy whose defaults these settings are, where one was named; the table remembers it.
        reuse: The directory of an earlier run, whose stored values and proxies are asked in place of the pool.
    """

    run_dir: Path
    pool: Rows
    anchors: Rows | None
    proxy: ProxyConfig
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    encoding: EncodingConfig = field(default_factory=EncodingConfig)
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    evaluation: tuple[Rows, ...] = ()
    strategy: str | None = None
    reuse: Path | None = None

    @property
    def overlap(self) -> str:
        """What is done about exact copies of anchors: ``error``, or ``drop``."""
        return getattr(self.anchors.config, "overlap", "error") if self.anchors is not None else "error"


@dataclass(frozen=True)
class ScoringJob:
    """A request that was accepted, opened: what a scorer and the stages after it work on.

    Attributes:
        pool: The candidates, encoded for the proxy.
        anchors: The anchors, encoded likewise.
        proxy: The base model, its adapter and its warm-up.
        table: The score table.
        exclude: Rows that are not scored: the status and the detail each gets.
        config: The scorer, the second stage and the loop.
        folder: The run directory.
        reuse: An earlier run, whose stored values and proxies stand for a pass over the pool.
    """

    pool: EncodedDataset
    anchors: EncodedDataset | None
    proxy: ProxyConfig
    table: ScoreTable
    exclude: Excluded
    config: ScoringConfig
    folder: Path
    reuse: Reused | None = None

    @property
    def candidates(self) -> int:
        """How many rows there are of which a share is kept: copies that were dropped are no part of the pool."""
        return len(self.pool) - len(self.exclude)
