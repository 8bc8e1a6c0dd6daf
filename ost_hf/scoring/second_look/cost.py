"""What the second look of a pool would take, from a few of its training steps and a pass over a few rows."""

from __future__ import annotations

import logging
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import pairwise

from ost_hf.data.batching import cut_batches
from ost_hf.data.encoding.encoded import Encoded
from ost_hf.errors import ModelError
from ost_hf.evidence.late_loss import late_loss
from ost_hf.models import weights_dtype
from ost_hf.parallel import free_memory
from ost_hf.proxy.training import TrainingPlan, shuffled_batches, train
from ost_hf.scorers.losses import LossScorer
from ost_hf.scoring.clock import first_line, now, peak_memory_gib, reset_peak_memory, timed_pass
from ost_hf.scoring.cost import StageCost
from ost_hf.scoring.job import ScoringJob
from ost_hf.scoring.loop import fit_memory
from ost_hf.scoring.passes import Part
from ost_hf.scoring.second_look.learnt_from import count_held_out, most_asked, rows_asked
from ost_hf.scoring.second_look.options import SecondLookOptions
from ost_hf.scoring.second_look.proxies import (
    MAX_GRAD_NORM,
    load_trainable,
    passes_of_a_step,
    trained_in_bfloat16,
    training_steps,
)
from ost_hf.scoring.second_look.rounds import proxies_asked

logger = logging.getLogger(__name__)

# The first one also makes the optimizer's state.
_STEPS = 3


def measure_second_look(job: ScoringJob, rows: list[Encoded]) -> StageCost:
    """Trains a copy of the base model for a few steps on some rows, and asks it about them.

    Args:
        job: The pool that the rows are of, and how the second look is taken.
        rows: At least one.
    """
    options: SecondLookOptions = job.config.stage_options.of_pool(job.candidates)
    trainings, steps = planned_trainings(job.candidates, options)
    passes = planned_asking(job.candidates, options) / max(1, job.candidates)
    anchors = len(job.anchors) if job.anchors is not None else 0
    what = "all weights" if options.trainable == "all" else "adapters"
    less = "scoring.second_look.trainable to adapter, or " if options.trainable == "all" else ""
    found = StageCost("second_look", trainings, steps, options.batch_size, what, passes)
    parts = planned_parts(job.candidates, anchors, options)
    found = replace(found, remedy=f"{less}{found.remedy} (strategy one_step)", parts=parts)
    logger.info("measuring the second look")
    reset_peak_memory()
    try:
        step_seconds, rate = _measured(job, rows)
        asked = planned_asking(job.candidates, options) + models_asked(options) * len(options.folds) * anchors
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


def planned_trainings(pool_rows: int, options: SecondLookOptions) -> tuple[int, int]:
    """How many proxies are trained, and in how many steps together, where no row is found corrupted.

    Args:
        pool_rows: Rows of the pool; where it is halved, each half is taken to have as many as the other.
        options: How the second look is taken.
    """
    options = options.of_pool(pool_rows)
    folds = len(options.folds)
    share = options.share if options.learn_from == "highest_utility" else 1.0
    learnable = pool_rows - count_held_out(pool_rows, options)
    first = training_steps(round(share * learnable / folds), options)
    later = training_steps(round(most_asked(learnable, options) / folds), options)
    return folds * options.rounds, folds * (first + (options.rounds - 1) * later)


def planned_asking(pool_rows: int, options: SecondLookOptions) -> int:
    """How many forward passes of a row are made of the pool.

    Args:
        pool_rows: Rows of the pool.
        options: How the second look is taken.
    """
    options = options.of_pool(pool_rows)
    rounds = range(1, options.rounds + 1)
    return sum(proxies_asked(number) * rows_asked(pool_rows, number, options) for number in rounds)


def models_asked(options: SecondLookOptions) -> int:
    """How many models look at a row, or at an anchor, that is asked about in all rounds."""
    return sum(proxies_asked(number) for number in range(1, options.rounds + 1))


def planned_parts(pool_rows: int, anchors: int, options: SecondLookOptions) -> dict[str, Part]:
    """What a run would count, where no row is found corrupted and nothing is tried for its memory.

    Args:
        pool_rows: Rows of the pool.
        anchors: Each is asked about as often as a row is, by the proxies of every part of the pool.
        options: How the second look is taken.
    """
    options = options.of_pool(pool_rows)
    trainings, steps = planned_trainings(pool_rows, options)
    return {
        "second_look_training": Part(steps * passes_of_a_step(options), trainings=trainings, steps=steps),
        "second_look_asking": Part(planned_asking(pool_rows, options)),
        "anchors": Part(models_asked(options) * len(options.folds) * anchors),
    }


def _measured(job: ScoringJob, rows: list[Encoded]) -> tuple[float, float]:
    """Seconds of a training step, and rows per second of a forward pass, of as many models as are asked together."""
    options: SecondLookOptions = job.config.stage_options
    model, parameters = load_trainable(job)
    times: list[float] = []
    plan = TrainingPlan(
        shuffled_batches([row.row for row in rows], options.batch_size, _STEPS, job.config.seed),
        [options.learning_rate] * _STEPS,
        max_grad_norm=MAX_GRAD_NORM,
        in_bfloat16=trained_in_bfloat16(job),
        name="second look, a few steps",
    )
    train(model, parameters, job.pool, plan, after_step=lambda _: times.append(now()))
    if options.trainable == "all":
        model.to(weights_dtype(job.proxy))  # as trained proxies are loaded
    models = [model, *(deepcopy(model) for _ in range(proxies_asked(options.rounds) - 1))]
    free_memory()
    scorer = LossScorer(partial(late_loss, models), job.pool.encoder.processing_class, job.config)
    fit_memory(scorer, rows)
    _, seconds = timed_pass(scorer, cut_batches(rows, scorer.batch_tokens, scorer.batch_size))
    step_seconds = min(after - before for before, after in pairwise(times))
    return step_seconds, len(models) * len(rows) / seconds
