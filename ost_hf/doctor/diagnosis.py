"""What a doctor's visit found, in figures.

The same rows are scored twice with the same parameters, in other company (batches, padding):

    noise = root mean square of the differences     signal = standard deviation of the utilities
    snr = median |utility| / median |difference|

Rounding that other company does not change stays unseen by it (a candidate's step is rounded in the same way in
every batch; on a CPU, bfloat16 products hardly depend on their neighbours). So another precision than float32 is
also held against the same estimator in float32:

    snr against float32 = median |utility in float32| / median |difference from it|
"""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ost_hf.functional.frozen import Anatomy, anatomy_of
from ost_hf.proxy.model import Proxy
from ost_hf.scoring.cost import StageCost


@dataclass(frozen=True)
class Structure:
    """The proxy: what of it is adapted and what is not.

    ``layers_below`` and ``layers_above`` count decoder layers below the first and above the last adapted one;
    ``layers`` is 0 where adapters stand outside the decoder's list of layers. ``fused_experts`` holds the
    parameters of experts fused in one tensor, by name; ``quantisation`` the method, if any.
    """

    model: str
    precision: str
    device: str
    attention: str
    adapted_modules: int
    by_name: dict[str, int]
    adapter_parameters: int
    base_parameters: int
    linear_layers_left_alone: int
    layers: int
    layers_below: int
    layers_above: int
    fused_experts: dict[str, int]
    quantisation: str | None
    warmup_steps: int


@dataclass(frozen=True)
class Sample:
    """The rows that were looked at: ``usable`` of ``drawn``, ``statuses`` of those that are not ``ok``."""

    pool_rows: int
    drawn: int
    usable: int
    statuses: dict[str, int]
    anchors: int


@dataclass(frozen=True)
class Setting:
    """What the configuration asks for."""

    estimator: str
    utility: str
    update_rule: str
    learning_rate: float

    @property
    def measured(self) -> str:
        """The utility whose figures speak for the one asked for: those that divide ``raw`` share its noise."""
        return "mean_cosine" if self.utility == "mean_cosine" else "raw"


@dataclass(frozen=True)
class Cost:
    """Of one pass over the sample, encoding aside; tokens are those of prompts, images and answers, not padding.

    ``pool_seconds`` is what the whole pool would take at this rate, after ``setup_seconds`` on the anchors;
    ``peak_memory_gib`` is known on CUDA devices only.
    """

    rows_per_second: float
    tokens_per_second: float
    batches: int
    setup_seconds: float
    pool_seconds: float
    peak_memory_gib: float | None = None


@dataclass(frozen=True)
class AgainstFloat32:
    """The same estimator and rows in float32: its median |utility|, and the median |difference| from it."""

    median_utility: float
    median_difference: float
    snr: float


@dataclass(frozen=True)
class Figures:
    """How far an estimator's utilities stand above their noise, how they rank, and what they cost.

    ``against_float32`` is ``None`` in float32 itself and where the estimator has no figures there. ``spearman`` is with
    ``exact`` in float32; ``None`` where there is none or where all utilities are equal.
    """

    median_utility: float
    median_difference: float
    signal: float
    noise: float
    snr: float
    against_float32: AgainstFloat32 | None
    spearman: float | None
    cost: Cost


@dataclass(frozen=True)
class Measurement:
    """One estimator in one precision: figures, or why it was refused. ``note`` says how it works there."""

    precision: str
    estimator: str
    utility: str
    figures: Figures | None = None
    refused: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Recommendation:
    """Estimator and precision to use, and why; ``None`` where no estimator could score."""

    estimator: str | None
    dtype: str | None
    reason: str


@dataclass(frozen=True)
class Diagnosis:
    """Everything that ``doctor.json`` holds.

    ``second_stage`` is there where one is asked for that tells its cost, and ``cost``, the plan of the whole run in
    passes, where all of it is known.
    """

    structure: Structure
    sample: Sample
    setting: Setting
    measurements: list[Measurement]
    warnings: list[str]
    recommendation: Recommendation
    second_stage: StageCost | None = None
    cost: dict[str, Any] | None = None


def figures_of(
    once: Sequence[float],
    again: Sequence[float],
    cost: Cost,
    float32: Sequence[float] | None = None,
    spearman: float | None = None,
) -> Figures:
    """Figures of one estimator in one precision.

    Args:
        once: Utilities as they are scored.
        again: Utilities of the same rows in other company.
        cost: Of the first pass.
        float32: Utilities by the same estimator in float32, if this is another precision.
        spearman: With ``exact`` in float32.
    """
    differences = [a - b for a, b in zip(once, again, strict=True)]
    difference = _median(differences)
    noise = math.sqrt(statistics.fmean(d * d for d in differences))
    against = None
    if float32 is not None:
        utility, error = _median(float32), _median([a - b for a, b in zip(once, float32, strict=True)])
        against = AgainstFloat32(utility, error, _ratio(utility, error))
    utility = _median(once)
    snr = _ratio(utility, difference)
    return Figures(utility, difference, statistics.stdev(once), noise, snr, against, spearman, cost)


def _median(values: Sequence[float]) -> float:
    return statistics.median(map(abs, values))


def _ratio(utility: float, difference: float) -> float:
    # Utilities that rounding has taken to zero, in both readings alike, are not free of noise: they say nothing.
    if utility == 0:
        return 0.0
    return utility / difference if difference else math.inf


def describe(proxy: Proxy) -> Structure:
    """What of a proxy is adapted, and what LoRA leaves alone or cannot reach."""
    base = proxy.model.get_base_model()
    anatomy = anatomy_of(proxy.model, proxy.pairs)
    report = proxy.report()
    # Adapter weights stay in float32 whatever the base model's precision is.
    weights = (p for name, p in proxy.model.named_parameters() if ".lora_" not in name and p.is_floating_point())
    first = next(weights)
    return Structure(
        model=proxy.config.model,
        precision=str(first.dtype).removeprefix("torch."),
        device=str(first.device),
        attention=str(base.config._attn_implementation),
        adapted_modules=report["adapted_modules"],
        by_name=report["by_name"],
        adapter_parameters=report["trainable_parameters"],
        base_parameters=report["base_parameters"],
        linear_layers_left_alone=report["linear_layers_left_alone"],
        layers=anatomy.layers,
        layers_below=len(anatomy.frozen_layers),
        layers_above=_layers_above(anatomy, proxy),
        fused_experts=fused_experts(anatomy.decoder),
        quantisation=_quantisation(base),
        warmup_steps=report["warmup_steps"],
    )


def fused_experts(decoder: nn.Module) -> dict[str, int]:
    """Sizes of parameters that hold one matrix for each expert, by name with ``*`` for the layer's number.

    LoRA adapts linear layers; these belong to none.
    """
    sizes: Counter[str] = Counter()
    for prefix, module in decoder.named_modules():
        # The weight of a short convolution, as in linear attention, has three dimensions too.
        if isinstance(module, nn.modules.conv._ConvNd):
            continue
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if parameter.dim() == 3:
                sizes[re.sub(r"(^|\.)\d+(?=\.)", r"\1*", name)] += parameter.numel()
    return dict(sizes)


def _layers_above(anatomy: Anatomy, proxy: Proxy) -> int:
    """Decoder layers above the last that holds an adapter."""
    if not anatomy.layers:
        return 0
    adapted = {pair.layer for pair in proxy.pairs}
    lists = (module for module in anatomy.decoder.children() if isinstance(module, nn.ModuleList))
    layers = next(found for found in lists if any(module in adapted for module in found.modules()))
    holding = [i for i, layer in enumerate(layers) if adapted & set(layer.modules())]
    return len(layers) - 1 - holding[-1]


def _quantisation(base: Any) -> str | None:
    """The method of a quantised model."""
    settings = getattr(base.config, "quantization_config", None)
    if settings is None:
        return None
    method = settings.get("quant_method") if isinstance(settings, dict) else settings.quant_method
    return str(getattr(method, "value", method))
