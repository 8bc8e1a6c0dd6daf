"""What a scoring run will cost in passes of the proxy, before it begins: the arithmetic that the run counts by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.warmup import wanted_rows, warmup_steps
from ost_hf.scorers.one_step.estimators import passes_of, setup_passes_of
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.passes import ADAPTER_UPDATE, Part, cost_of_parts


def planned_cost(
    scoring: ScoringConfig, proxy: ProxyConfig, rows: int, anchors: int, stage: Mapping[str, Part] | None
) -> dict[str, Any] | None:
    """The plan of one-step utilities and of the second stage, as :func:`ost_hf.scoring.passes.cost_of_parts` gives it.

    It takes every row for one that can be scored, none for corrupted, and does not know which batches will be tried for
    their memory.

    Args:
        scoring: With the scorer ``one_step``.
        proxy: The proxy and its warm-up.
        rows: Rows of the pool, without copies that are dropped.
        anchors: Their number.
        stage: What the second stage takes, by part; ``None`` where it does not tell, or there is none.

    Returns:
        The cost without seconds; ``None`` where there is a second stage that does not tell.
    """
    if (scoring.second_stage is None) != (stage is None):
        return None
    passes = passes_of(scoring.options.estimator, anchors)
    parts: dict[str, Part] = {}
    if proxy.warmup_fraction:
        steps = warmup_steps(proxy, wanted_rows(proxy.warmup_fraction, rows))
        parts["warm_up"] = Part(ADAPTER_UPDATE * proxy.warmup_batch_size * steps, trainings=1, steps=steps)
    parts["set_up"] = Part(setup_passes_of(scoring.options.estimator, anchors))
    parts["anchors"] = Part(passes * anchors)
    parts["scoring" if stage is None else "first"] = Part(passes * rows)
    for name, part in (stage or {}).items():
        parts.setdefault(name, Part()).add(part)
    return cost_of_parts(parts, rows)
