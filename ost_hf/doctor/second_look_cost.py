"""What the second look of a pool would take, from a few of its training steps and a pass over a few rows."""

from __future__ import annotations

import logging
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import pairwise

from ost_hf.data.batching import cut_batches
from ost_hf.data.encoding import EncodedDataset
from ost_hf.doctor.clock import now, peak_memory_gib, reset_peak_memory, timed_pass
from ost_hf.doctor.diagnosis import SecondLookCost
from ost_hf.doctor.readings import Bench, first_line
from ost_hf.errors import ModelError
from ost_hf.evidence.late_loss import late_loss
from ost_hf.models import weights_dtype
from ost_hf.parallel import free_memory
from ost_hf.proxy.config import ProxyConfig
from ost_hf.proxy.training import shuffled_batches, train
from ost_hf.scorers.perplexity import LossScorer
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.loop import fit_memory
from ost_hf.scoring.second_look.proxies import MAX_GRAD_NORM, load_trainable, trained_in_bfloat16, training_steps
from ost_hf.scoring.second_look.rounds import FOLDS, proxies_asked

logger = logging.getLogger(__name__)

# The first one also makes the optimizer's state.
_STEPS = 3


def measure_second_look(bench: Bench, pool: EncodedDataset, proxy: ProxyConfig) -> SecondLookCost:
    """Trains a copy of the base model for a few steps on the bench's rows, and asks it about them.

    Args:
        bench: The rows, and how they are scored.
        pool: The pool that they are of.
        proxy: The base model and its adapter.
    """
    config = bench.scoring
    trainings, steps = planned_trainings(bench.pool_rows, config)
    passes = planned_passes(config)
    found = SecondLookCost(trainings, steps, config.second_look_batch_size, config.second_look_trainable, passes)
    logger.info("measuring the second look")
    reset_peak_memory()
    try:
        step_seconds, rate = _measured(bench, pool, proxy)
        asked = passes * (bench.pool_rows + len(FOLDS) * len(bench.anchors))
        found = replace(
            found,
            step_seconds=step_seconds,
            rows_per_second=rate,
            seconds=steps * step_seconds + asked / rate,
            peak_memory_gib=peak_memory_gib(),
        )
    # What a model, a kernel or the memory refuses is a finding; errors in rows and settings are not caught.
    except (ModelError, RuntimeError) as error:
        found = replace(found, refused=first_line(error))
    # Not before: what was caught holds on to the model.
    free_memory()
    return found


def planned_trainings(pool_rows: int, config: ScoringConfig) -> tuple[int, int]:
    """How many proxies are trained, and in how many steps together, where no row is found corrupted.

    Args:
        pool_rows: Rows of the pool; each half is taken to have as many as the other.
        config: How the second look is taken.
    """
    half = pool_rows / len(FOLDS)
    first = training_steps(round(config.second_look_share * half), config)
    later = training_steps(round(half), config)
    rounds = config.second_look_rounds
    return len(FOLDS) * rounds, len(FOLDS) * (first + (rounds - 1) * later)


def planned_passes(config: ScoringConfig) -> int:
    """How many forward passes are made of every row."""
    return sum(proxies_asked(number) for number in range(1, config.second_look_rounds + 1))


def _measured(bench: Bench, pool: EncodedDataset, proxy: ProxyConfig) -> tuple[float, float]:
    """Seconds of a training step, and rows per second of a forward pass, of as many models as are asked together."""
    config = bench.scoring
    model, parameters = load_trainable(proxy, config)
    rows = [row.row for row in bench.rows]
    times: list[float] = []
    train(
        model,
        parameters,
        pool,
        shuffled_batches(rows, config.second_look_batch_size, _STEPS, config.seed),
        [config.second_look_learning_rate] * _STEPS,
        max_grad_norm=MAX_GRAD_NORM,
        in_bfloat16=trained_in_bfloat16(proxy, config),
        name="second look, a few steps",
        after_step=lambda _: times.append(now()),
    )
    if config.second_look_trainable == "all":
        model.to(weights_dtype(proxy))  # as trained proxies are loaded
    models = [model, *(deepcopy(model) for _ in range(proxies_asked(config.second_look_rounds) - 1))]
    free_memory()
    scorer = LossScorer(partial(late_loss, models), pool.encoder.processing_class, config)
    fit_memory(scorer, bench.rows)
    _, seconds = timed_pass(scorer, cut_batches(bench.rows, scorer.batch_tokens, scorer.batch_size))
    step_seconds = min(after - before for before, after in pairwise(times))
    return step_seconds, len(models) * len(bench.rows) / seconds
