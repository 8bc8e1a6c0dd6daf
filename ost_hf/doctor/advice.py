"""What follows from a diagnosis: warnings in plain words, and a recommendation with its reasons.

Pure functions of figures. A ranking is trusted where the median |utility| is at least 20 times its noise; under its
noise it is the ranking of rounding errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ost_hf.doctor.diagnosis import Figures, Measurement, Recommendation, Sample, Setting, Structure
from ost_hf.scoring.cost import StageCost

# How many times its noise a utility must be for its ranking to be trusted.
CLEAR_SNR = 20
# From this Spearman correlation on, first order is said to rank like the exact step.
AGREES = 0.9
# How much worse than float32 another precision may rank, and how much faster it must be to be worth a change.
_RANKS_ALIKE = 0.02
_MUCH_FASTER = 1.3


@dataclass(frozen=True)
class Findings:
    """What was found so far: all that advice is made of."""

    structure: Structure
    sample: Sample
    setting: Setting
    measurements: Sequence[Measurement]
    second_stage: StageCost | None = None

    def measurement(self, precision: str, estimator: str, utility: str = "raw") -> Measurement | None:
        """One estimator in one precision; ``None`` if it was not tried."""
        wanted = (precision, estimator, utility)
        return next((m for m in self.measurements if (m.precision, m.estimator, m.utility) == wanted), None)

    def figures(self, precision: str, estimator: str, utility: str = "raw") -> Figures | None:
        """Its figures; ``None`` if it was refused or not tried."""
        found = self.measurement(precision, estimator, utility)
        return found.figures if found is not None else None

    def is_clear(self, precision: str, estimator: str, utility: str = "raw") -> bool:
        """Whether there are figures, far enough above their noise."""
        found = self.measurement(precision, estimator, utility)
        return found is not None and standing(found) >= CLEAR_SNR


def standing(measurement: Measurement) -> float:
    """How many times its noise an estimator's utility is; 0 if it was refused.

    Differences of losses are rounded by the same amount however small they are, so ``exact`` is held against
    float32 too. First order is wrong by a share of itself there: whether that matters, Spearman tells.
    """
    figures = measurement.figures
    if figures is None:
        return 0.0
    if measurement.estimator != "exact" or figures.against_float32 is None:
        return figures.snr
    return min(figures.snr, figures.against_float32.snr)


def warnings_of(found: Findings) -> list[str]:
    """What the user should know before scoring, one sentence or two each."""
    return [
        *_about_rows(found.sample),
        *_about_structure(found.structure),
        *(_about_noise(m, found.setting) for m in found.measurements if m.figures and standing(m) < CLEAR_SNR),
        *_about_ranking(found),
        *_about_second_stage(found.second_stage),
    ]


def _about_rows(sample: Sample) -> list[str]:
    if not sample.statuses:
        return []
    counts = ", ".join(f"{count} {status}" for status, count in sorted(sample.statuses.items()))
    return [f"of {sample.drawn} rows drawn from the pool, not ok: {counts}. The score table will name each such row"]


def _about_second_stage(cost: StageCost | None) -> list[str]:
    if cost is None or cost.refused is None:
        return []
    return [f"{cost.stage} was refused: {cost.refused}. Set {cost.remedy}"]


def _about_structure(structure: Structure) -> list[str]:
    said = []
    if not structure.warmup_steps:
        said.append(
            "the proxy is cold: its adapter adds nothing yet, half of its gradients are zero, and it ranks badly. "
            "Set proxy.warmup_fraction above 0"
        )
    if structure.fused_experts:
        total = sum(structure.fused_experts.values())
        said.append(
            f"experts are fused in one parameter ({', '.join(structure.fused_experts)}: {total:,} of "
            f"{structure.base_parameters:,} base parameters). LoRA does not reach them: utilities see the other layers"
        )
    if structure.layers == 0:
        said.append(
            "adapters stand in several lists of layers or outside the decoder's: no frozen layer below them can be "
            "skipped, and exact costs whole forward passes"
        )
    if structure.layers_below or structure.layers_above:
        said.append(
            f"only a part of the {structure.layers} decoder layers is adapted: {structure.layers_below} lie below the "
            f"first adapted one, {structure.layers_above} above the last. What they would learn is not in the utilities"
        )
    if structure.quantisation:
        said.append(
            f"the base model is quantised ({structure.quantisation}): its weights cannot be had in another precision, "
            "so only this one was measured"
        )
    return said


def _about_noise(measurement: Measurement, setting: Setting) -> str:
    figures, times = measurement.figures, standing(measurement)
    assert figures is not None
    is_exact, precision = measurement.estimator == "exact", measurement.precision
    name = "exact utility" if is_exact else f"{measurement.utility} utility of estimator {measurement.estimator}"
    stands = "is under its noise" if times < 1 else f"is only {times:.2g} times its noise"
    if figures.against_float32 is not None and times < figures.snr:
        utility, noise = figures.against_float32.median_utility, figures.against_float32.median_difference
        seen = f"median |utility| {utility:.1e} in float32, off by {noise:.1e}"
    else:
        seen = f"median |utility| {figures.median_utility:.1e}, noise {figures.median_difference:.1e}"
    remedies = ["estimator reverse"] if measurement.estimator != "reverse" else []
    remedies += ["dtype float32"] if precision != "float32" else []
    remedies += ["a larger learning rate"] if is_exact else []
    use = f"; use {', or '.join(remedies)}" if remedies else ""
    verdict = "; its ranking is noise" if times < 1 else ""
    return f"the {name} at learning rate {setting.learning_rate:g} in {precision} {stands}: {seen}{verdict}{use}"


def _about_ranking(found: Findings) -> list[str]:
    setting, precision = found.setting, found.structure.precision
    estimator = setting.estimator
    own = found.measurement(precision, estimator, setting.measured)
    if own is not None and own.refused:
        return [f"the configured estimator {estimator} ({setting.utility}) cannot score in {precision}: {own.refused}"]
    raw = found.figures(precision, estimator)
    if raw is None or raw.spearman is None or raw.spearman >= AGREES or not found.is_clear("float32", "exact"):
        return []
    cause = "" if estimator == "exact" else "; the step may be too long for first order: try a smaller learning rate"
    return [
        f"the raw utility of estimator {estimator} in {precision} ranks unlike exact in float32: Spearman "
        f"{raw.spearman:.3f}{cause}"
    ]


def recommend(found: Findings) -> Recommendation:
    """Which estimator in which precision, with the figures that speak for it."""
    dtype, why_dtype = _choose_precision(found)
    estimator, why_estimator = _choose_estimator(dtype, found)
    if estimator is None:
        return Recommendation(None, None, why_estimator)
    return Recommendation(estimator, dtype, f"{estimator}: {why_estimator}. {dtype}: {why_dtype}")


def _choose_precision(found: Findings) -> tuple[str, str]:
    """The configured precision, unless reverse is unclear in it, or clear and much faster in the other one."""
    own, utility = found.structure.precision, found.setting.measured
    serving = [p for p in dict.fromkeys(m.precision for m in found.measurements) if _serves(p, found)]
    if not serving:
        return own, "as configured; reverse is not clear of its noise in any precision that could be measured"
    rates = {p: figures.cost.rows_per_second for p in serving if (figures := found.figures(p, "reverse", utility))}
    fastest = max(rates, key=rates.__getitem__)
    if own not in serving:
        return fastest, f"in {own} {_fault(own, found)}"
    if rates[fastest] >= _MUCH_FASTER * rates[own]:
        return fastest, f"reverse ranks alike in it at {rates[fastest] / rates[own]:.1f} times the speed of {own}"
    own_figures = found.figures(own, "reverse", utility)
    assert own_figures is not None
    return own, f"as configured; reverse stands {_times(own_figures.snr)} above its noise in it"


def _serves(precision: str, found: Findings) -> bool:
    """Whether reverse is clear of its noise in ``precision`` and ranks no worse than in float32."""
    raw, best = found.figures(precision, "reverse"), found.figures("float32", "reverse")
    if raw is None or not found.is_clear(precision, "reverse", found.setting.measured):
        return False
    if best is None or best.spearman is None or not found.is_clear("float32", "exact"):
        return True
    return raw.spearman is not None and raw.spearman >= best.spearman - _RANKS_ALIKE


def _fault(precision: str, found: Findings) -> str:
    """Why :func:`_serves` says no."""
    measurement = found.measurement(precision, "reverse", found.setting.measured)
    if measurement is None or measurement.refused:
        return f"reverse cannot score ({measurement.refused if measurement else 'not measured'})"
    if standing(measurement) < CLEAR_SNR:
        return f"reverse stands only {_times(standing(measurement))} above its noise"
    raw, best = found.figures(precision, "reverse"), found.figures("float32", "reverse")
    assert raw is not None and best is not None
    return f"reverse ranks worse (Spearman with exact {raw.spearman or math.nan:.3f}, in float32 {best.spearman:.3f})"


def _choose_estimator(precision: str, found: Findings) -> tuple[str | None, str]:
    reverse, forward, exact = (found.figures(precision, name) for name in ("reverse", "forward", "exact"))
    if reverse is None:
        return _without_reverse(precision, found)
    is_raw = found.setting.utility == "raw"
    rank = reverse.spearman if found.is_clear("float32", "exact") else None
    if exact is not None and rank is not None and rank < AGREES and is_raw and found.is_clear(precision, "exact"):
        return "exact", (
            f"first order ranks unlike it (Spearman {rank:.3f}), and it stands {_times(exact.snr)} above its noise; it "
            f"takes {_slower(exact, reverse)} times as long as reverse, which would do at a smaller learning rate"
        )
    said = [
        "there is no exact in float32, clear of its noise, to compare its ranking with"
        if rank is None
        else f"its raw utility has a Spearman of {rank:.4f} with exact in float32"
    ]
    if exact is not None:
        said.append(f"exact takes {_slower(exact, reverse)} times as long")
    if forward is not None:
        said.append(f"forward takes {_slower(forward, reverse)} times as long{_memory(forward, reverse)}, for raw only")
    if found.setting.utility in ("mean_cosine", "per_gradient_norm"):
        said.append(f"no other estimator gives {found.setting.utility}")
    return "reverse", "; ".join(said)


def _without_reverse(precision: str, found: Findings) -> tuple[str | None, str]:
    measurement = found.measurement(precision, "reverse")
    refusal = measurement.refused if measurement is not None else "it was not measured"
    for name in ("forward", "exact"):
        if found.is_clear(precision, name):
            switch = "" if found.setting.utility == "raw" else "; it needs scoring.one_step.utility raw"
            return name, f"reverse cannot score in {precision} ({refusal}){switch}"
    return None, f"no estimator can score this pool in {precision}. reverse: {refusal}"


def _times(ratio: float) -> str:
    if ratio > 1e5:
        return "more than 100,000 times"
    return f"{ratio:,.0f} times" if ratio >= 100 else f"{ratio:.2g} times"


def _slower(one: Figures, other: Figures) -> str:
    return f"{other.cost.rows_per_second / one.cost.rows_per_second:.2g}"


def _memory(one: Figures, other: Figures) -> str:
    if not one.cost.peak_memory_gib or not other.cost.peak_memory_gib:
        return ""
    return f" and {one.cost.peak_memory_gib / other.cost.peak_memory_gib:.2g} of its memory"
