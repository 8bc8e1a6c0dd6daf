"""A diagnosis as text."""

from __future__ import annotations

import math
import textwrap
from itertools import groupby

from ost_hf.doctor.diagnosis import Diagnosis, Figures, Measurement
from ost_hf.scoring.cost import StageCost
from ost_hf.scoring.passes import cost_in_words

_WIDTH = 110
_HEAD = ("", "|u|", "signal", "noise", "snr", "vs f32", "Spearman", "rows/s", "tokens/s", "pool in", "GiB")
_LEGEND = (
    "|u|: median |utility|, raw in nats per token or a cosine. signal: standard deviation of u. noise: rms change of u "
    "in other batches and padding. snr: |u| / median |change|; vs f32: the same for the change from float32. Spearman: "
    "with exact in float32. pool in: the whole pool at this rate, set-up and encoding aside."
)


def page(diagnosis: Diagnosis) -> str:
    """The findings as text, at most 110 columns wide."""
    setting, sample = diagnosis.setting, diagnosis.sample
    lines = [
        *_structure(diagnosis),
        f"{'measured':<10}{sample.usable} of {sample.pool_rows:,} pool rows against {sample.anchors} anchors, "
        f"{setting.update_rule} step, learning rate {setting.learning_rate:g}",
        "",
        *_table(diagnosis.measurements),
        *textwrap.wrap(_LEGEND, _WIDTH),
        "",
    ]
    if diagnosis.second_stage is not None and diagnosis.second_stage.refused is None:
        lines += _item("then", _second_stage(diagnosis.second_stage))
    if diagnosis.cost is not None:
        lines += _item("cost", f"{cost_in_words(diagnosis.cost, 'selection will cost about')}; trial batches aside")
    for m in diagnosis.measurements:
        if m.note:
            lines += _item("note", f"{m.estimator} {m.utility} in {m.precision}: {m.note}")
        if m.refused is not None:
            lines += _item("refused", f"{m.estimator} {m.utility} in {m.precision}: {m.refused}")
    for warning in diagnosis.warnings:
        lines += _item("warning", warning)
    advice = diagnosis.recommendation
    chosen = f"estimator {advice.estimator}, dtype {advice.dtype}" if advice.estimator else "none"
    return "\n".join([*lines, *_item("use", f"{chosen}. {advice.reason}")])


def _structure(diagnosis: Diagnosis) -> list[str]:
    s = diagnosis.structure
    names = ", ".join(f"{count} {name}" for name, count in s.by_name.items())
    held = s.layers - s.layers_below - s.layers_above
    where = f"in {held} of {s.layers} decoder layers, {s.layers_below} below them" if s.layers else "in several places"
    experts = f"; experts in one parameter, out of LoRA's reach: {sum(s.fused_experts.values()):,} parameters"
    return [
        *_item("proxy", f"{s.model}, {s.quantisation or s.precision} on {s.device}, {s.attention} attention"),
        *_item("adapted", f"{s.adapted_modules} modules {where}: {names}"),
        *_item(
            "",
            f"{s.adapter_parameters:,} parameters on {s.base_parameters:,}; {s.linear_layers_left_alone} linear layers "
            f"left alone; {s.warmup_steps} warm-up steps{experts if s.fused_experts else ''}",
        ),
    ]


def _second_stage(cost: StageCost) -> str:
    assert cost.step_seconds is not None and cost.rows_per_second is not None and cost.seconds is not None
    memory = f"; {cost.peak_memory_gib:.1f} GiB with the proxy" if cost.peak_memory_gib is not None else ""
    return (
        f"{cost.stage}: about {_duration(cost.seconds)} more, encoding aside: {cost.trainings} trainings of "
        f"{cost.trainable}, at most "
        f"{cost.steps:,} steps of {cost.batch_size} samples together ({_compact(1 / cost.step_seconds)} steps/s), and "
        f"{cost.passes:.3g} forward passes of the pool ({_compact(cost.rows_per_second)} rows/s){memory}"
    )


def _item(name: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=f"{name:<10}", subsequent_indent=" " * 10, break_on_hyphens=False)


def _table(measurements: list[Measurement]) -> list[str]:
    """A block for each precision; what was refused has no row, and where memory is not known it has no column."""
    rows: list[tuple[str, ...]] = [_HEAD]
    for precision, found in groupby(measurements, key=lambda m: m.precision):
        rows.append((precision, *[""] * (len(_HEAD) - 1)))
        rows += [_cells(f"  {m.estimator} {m.utility}", m.figures) for m in found if m.figures is not None]
    if not any(m.figures and m.figures.cost.peak_memory_gib for m in measurements):
        rows = [row[:-1] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def _cells(name: str, figures: Figures) -> tuple[str, ...]:
    cost, against = figures.cost, figures.against_float32
    return (
        name,
        f"{figures.median_utility:.1e}",
        f"{figures.signal:.1e}",
        f"{figures.noise:.1e}",
        _compact(figures.snr),
        "-" if against is None else _compact(against.snr),
        "-" if figures.spearman is None else f"{figures.spearman:.4f}",
        _compact(cost.rows_per_second),
        _compact(cost.tokens_per_second),
        _duration(cost.pool_seconds),
        "-" if cost.peak_memory_gib is None else f"{cost.peak_memory_gib:.1f}",
    )


def _compact(number: float) -> str:
    if math.isinf(number) or number == 0:
        return f"{number:g}"
    if number >= 1e6:
        return f"{number:.1e}"
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
