"""What a second stage would take, for the doctor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ost_hf.scoring.passes import Part


@dataclass(frozen=True)
class StageCost:
    """What a second stage would take beside the scorer: figures, or why it was refused.

    Attributes:
        stage: Its name.
        trainings: How many models are trained.
        steps: Steps of all trainings together, at most.
        batch_size: Samples of a step.
        trainable: What of a model is trained, in words.
        passes: Forward passes of the pool.
        step_seconds: Of one step.
        rows_per_second: Of one forward pass.
        seconds: All of it, encoding aside.
        peak_memory_gib: With the scorer's model in memory; known on CUDA devices only.
        refused: Why nothing could be measured.
        remedy: What to set in place of a stage that was refused.
        parts: What is planned, as a run counts it: passes of rows, trainings, steps.
    """

    stage: str
    trainings: int
    steps: int
    batch_size: int
    trainable: str
    passes: float
    step_seconds: float | None = None
    rows_per_second: float | None = None
    seconds: float | None = None
    peak_memory_gib: float | None = None
    refused: str | None = None
    remedy: str = "scoring.second_stage to null"
    parts: Mapping[str, Part] = field(default_factory=dict)
