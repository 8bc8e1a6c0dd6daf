"""The same rows read twice by every estimator, on the clock: what the doctor's figures are made of.

Once as the score stage does, once in other company: rows and anchors shuffled, other batch sizes, more padding.
"""

from __future__ import annotations

import logging
import math
import random
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.functional import pad

from ost_hf.data.batching import cut_batches
from ost_hf.data.collator import Collator
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import IGNORE_INDEX, Encoded
from ost_hf.doctor.diagnosis import Cost
from ost_hf.errors import ModelError
from ost_hf.functional.step import AdamState, UpdateRule
from ost_hf.parallel import free_memory, state
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.model import Proxy, build_proxy
from ost_hf.scorers.one_step.estimators import ESTIMATORS, AnchorSet, Batch
from ost_hf.scorers.one_step.scorer import OneStepScorer
from ost_hf.scoring.clock import first_line, now, peak_memory_gib, reset_peak_memory, timed_pass
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.loop import fit_memory

logger = logging.getLogger(__name__)

METHODS = (("reverse", "raw"), ("reverse", "mean_cosine"), ("forward", "raw"), ("exact", "raw"))


@dataclass(frozen=True)
class Bench:
    """What every estimator is measured with: a few rows of a pool of ``pool_rows``."""

    rows: list[Encoded]
    pool_rows: int
    anchors: EncodedDataset
    scoring: ScoringConfig


@dataclass(frozen=True)
class Reading:
    """The same rows' utilities twice, and what the first time took."""

    once: list[float]
    again: list[float]
    cost: Cost
    note: str


# By precision, estimator and utility; a text says why there is no reading.
Readings = dict[tuple[str, str, str], Reading | str]


def read_in(precision: str, bench: Bench, adapter: Adapter) -> Readings:
    """Readings with the base model loaded in another precision, under the same adapter."""
    try:
        proxy = adapter.on_base_in(precision)
    except (ModelError, RuntimeError) as error:
        return {(precision, estimator, utility): first_line(error) for estimator, utility in METHODS}
    return read_all(precision, bench, proxy)


def read_all(precision: str, bench: Bench, proxy: Proxy) -> Readings:
    """Readings of every estimator with a proxy whose base model is in ``precision``."""
    readings: Readings = {}
    for estimator, utility in METHODS:
        logger.info("measuring %s %s in %s", estimator, utility, precision)
        try:
            readings[precision, estimator, utility] = _read(bench, proxy, estimator, utility)
        # What a model, a kernel or the memory refuses is a finding; errors in rows and settings are not caught.
        except (ModelError, RuntimeError) as error:
            readings[precision, estimator, utility] = first_line(error)
        free_memory()
    return readings


def _read(bench: Bench, proxy: Proxy, estimator: str, utility: str) -> Reading:
    # Standard errors, groups and sketches change the cost, not the utility.
    config = bench.scoring.without_extras().with_options(estimator=estimator, utility=utility)
    reset_peak_memory()
    started = now()
    scorer = OneStepScorer(config, config.options, proxy, bench.anchors)
    ready = now()
    # Also what warms kernels up before the clock runs.
    fit_memory(scorer, bench.rows)
    batches = cut_batches(bench.rows, scorer.batch_tokens, scorer.batch_size)
    scores, seconds = timed_pass(scorer, batches)
    cost = _cost(bench, len(batches), ready - started, seconds)
    once = dict(zip([row.row for batch in batches for row in batch], scores, strict=True))
    note = _derivative(scorer.estimator) if estimator == "forward" else ""
    company = _OtherCompany(proxy, config, scorer.rule, scorer.batch_tokens)
    # What it keeps of the anchors must not stand in memory twice.
    del scorer
    free_memory()
    again = company.utilities(bench)
    order = [row.row for row in bench.rows]
    return Reading([once[row] for row in order], [again[row] for row in order], cost, note)


def _derivative(forward: Any) -> str:
    """How the forward estimator differentiates in this model and precision."""
    if forward.derivative == "forward_mode":
        return "forward-mode derivative"
    return f"central difference, off by {forward.chosen.error:.2g} of the slopes' spread on the anchors"


def _cost(bench: Bench, batches: int, setup_seconds: float, seconds: float) -> Cost:
    rate = len(bench.rows) / seconds
    tokens = sum(row.length for row in bench.rows)
    return Cost(rate, tokens / seconds, batches, setup_seconds, bench.pool_rows / rate, peak_memory_gib())


@dataclass(frozen=True)
class _OtherCompany:
    """Scores rows against anchors with everything about batches changed, and nothing else."""

    proxy: Proxy
    config: ScoringConfig
    rule: UpdateRule
    batch_tokens: int

    def utilities(self, bench: Bench) -> dict[int, float]:
        """Utilities by row."""
        encoded = [bench.anchors.encode(row) for row in range(len(bench.anchors))]
        anchors = AnchorSet([self._inputs(rows) for rows in self._cut(encoded)])
        options = self.config.options
        estimator = ESTIMATORS[options.estimator](self.config, options, self.proxy, anchors, self.rule)
        found: dict[int, float] = {}
        for rows in self._cut(bench.rows):
            utilities = estimator(self._inputs(rows))["utility"].tolist()
            found |= zip((row.row for row in rows), utilities, strict=True)
        return found

    def _cut(self, rows: list[Encoded]) -> list[list[Encoded]]:
        """Shuffled, at most half as many at a time as would fit."""
        shuffled = random.Random(self.config.seed).sample(rows, len(rows))
        widest = max(self._width(row.length) for row in rows)
        size = max(1, min(self.batch_tokens // widest, self.config.batch_size or len(rows), len(rows)) // 2)
        return [shuffled[start : start + size] for start in range(0, len(rows), size)]

    def _inputs(self, rows: list[Encoded]) -> Batch:
        collate = Collator.of(self.proxy.processing_class)
        batch = collate([row.features for row in rows if row.features is not None])
        shape = batch["input_ids"].shape
        more = self._width(shape[1]) - shape[1]
        fills = {"input_ids": collate.pad_token_id, "labels": IGNORE_INDEX}
        padded = {
            key: pad(value, (0, more), value=fills.get(key, 0)) if value.shape == shape else value
            for key, value in batch.items()
        }
        return {key: value.to(state().device) for key, value in padded.items()}

    def _width(self, length: int) -> int:
        """A quarter more padding and a little, as far as the model has positions."""
        text_config = self.proxy.model.get_base_model().config.get_text_config()
        limit = getattr(text_config, "max_position_embeddings", None) or math.inf
        return max(length, int(min(length + length // 4 + 3, limit)))


@dataclass(frozen=True)
class Adapter:
    """What is left of a proxy without its base model."""

    config: ProxyConfig
    weights: dict[str, torch.Tensor]
    adam: AdamState | None

    @classmethod
    def of(cls, proxy: Proxy) -> Adapter:
        """A copy of a proxy's adapter."""
        return cls(proxy.config, {name: w.detach().clone() for name, w in proxy.parameters.items()}, proxy.adam)

    def on_base_in(self, precision: str) -> Proxy:
        """The adapter on a base model loaded as with ``proxy.dtype`` set to ``precision``."""
        proxy = build_proxy(replace(self.config, dtype=precision))
        for name, weight in proxy.parameters.items():
            weight.copy_(self.weights[name])
        proxy.adam = self.adam
        return proxy
