"""The sections of the benchmark: each returns figures under plain names."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterator
from typing import Any

import torch

from benchmark.contestants import Lineup
from benchmark.measuring import flops, flops_by_module, interleaved, matmul_peak, peak_bytes, ratio, seconds
from benchmark.presets import Case, Preset, Sizes
from ost_hf.evidence.rank_correlation import spearman
from ost_hf.functional.forward import anchor_direction
from ost_hf.functional.frozen import anatomy_of

Figures = dict[str, Any]


def costs(all_layers: Lineup, quarter: Lineup, sizes: Sizes, rounds: int) -> Figures:
    """All estimators side by side, all layers adapted and the last quarter."""
    contestants: dict[str, Any] = {}
    for name, lineup in (("all", all_layers), ("quarter", quarter)):
        directions, central = lineup.directions("mean_cosine"), lineup.central()
        contestants[f"plain_forward.{name}"] = lineup.plain_forward
        contestants[f"lora_training_step.{name}"] = lineup.lora_training_step()
        contestants[f"reverse.{name}"] = lambda lineup=lineup, d=directions: lineup.reverse(d)
        contestants[f"forward.{name}"] = lambda lineup=lineup, c=central: lineup.forward(c)
        if sizes.exact_candidates:
            exact = lineup.exact()
            some = lineup.case.batches(lineup.case.candidates[: sizes.exact_candidates], sizes.batch_tokens)
            contestants[f"exact.{name}"] = lambda exact=exact, some=some: [exact.utilities(b) for b in some]
            contestants[f"reference.{name}"] = lineup.reference(sizes.exact_candidates, sizes.anchors)
    times = interleaved(contestants, rounds)
    tokens = sum(len(row["input_ids"]) for row in all_layers.case.candidates)
    figures: Figures = {}
    for name, taken in times.items():
        kind = name.split(".")[0]
        count = sizes.exact_candidates if kind in ("exact", "reference") else sizes.candidates
        figures[f"candidates_per_second.{name}"] = count / statistics.median(taken)
        figures[f"tokens_per_second.{name}"] = tokens / sizes.candidates * count / statistics.median(taken)
    for layers in ("all", "quarter"):
        for kind in ("reverse", "forward"):
            figures[f"{kind}_in_plain_forwards.{layers}"] = ratio(times, f"{kind}.{layers}", f"plain_forward.{layers}")
            training = f"lora_training_step.{layers}"
            figures[f"{kind}_in_training_steps.{layers}"] = ratio(times, f"{kind}.{layers}", training)
            if sizes.exact_candidates:
                per_candidate = sizes.candidates / sizes.exact_candidates
                reference = f"reference.{layers}"
                figures[f"{kind}_over_reference.{layers}"] = ratio(times, reference, f"{kind}.{layers}", per_candidate)
        if sizes.exact_candidates:
            figures[f"exact_over_reference.{layers}"] = ratio(times, f"reference.{layers}", f"exact.{layers}")
    return figures | _share_above(quarter)


def _share_above(quarter: Lineup) -> Figures:
    """s: the part of a forward pass's arithmetic above the first adapted layer, the head included.

    Counted module by module in a plain forward pass, not from what the estimator happens to skip.
    """
    anatomy = anatomy_of(quarter.model, quarter.pairs)
    below = set(anatomy.frozen_layers)
    if anatomy.body is not anatomy.decoder:
        below |= {child for child in anatomy.body.children() if child is not anatomy.decoder}
    by_module = flops_by_module(quarter.model, lambda: _loss(quarter, quarter.batches[0]))
    whole = by_module["Global"]
    names = {module: name for name, module in quarter.model.named_modules()}
    frozen = sum(by_module.get(f"{type(quarter.model).__name__}.{names[module]}", 0) for module in below)
    return {"share_above_first_adapted_layer.quarter": (whole - frozen) / whole}


def _loss(lineup: Lineup, batch: Any) -> None:
    from ost_hf.functional.loss import per_sample_loss

    with torch.no_grad():
        per_sample_loss(lineup.model, batch)


def memory(lineup: Lineup) -> Figures:
    """Peaks beyond the model itself, on the largest batch."""
    batch = max(lineup.batches, key=lambda b: b["labels"].numel())
    directions, central = lineup.directions("mean_cosine"), lineup.central()
    peaks = {
        "forward_setup": _forward_setup_peak(lineup),
        "plain_forward": peak_bytes(lambda: _loss(lineup, batch)),
        "forward": peak_bytes(lambda: central(batch)),
        "reverse": peak_bytes(lambda: lineup.reverse(directions, [batch])),
    }
    weights = sum(p.numel() * p.element_size() for p in lineup.model.parameters())
    figures: Figures = {f"peak_megabytes.{name}": peak / 2**20 for name, peak in peaks.items()}
    figures["peak_megabytes.weights"] = weights / 2**20
    for name in ("forward", "reverse"):
        figures[f"{name}_peak_over_inference"] = (weights + peaks[name]) / (weights + peaks["plain_forward"])
        figures[f"{name}_activations_over_inference"] = peaks[name] / peaks["plain_forward"]
    return figures


def _forward_setup_peak(lineup: Lineup) -> int:
    """The anchor direction takes a backward pass; the scorer gives it one anchor at a time."""
    one_by_one = [lineup.case.on_device([row]) for row in lineup.case.anchors[: lineup.sizes.anchors]]
    return peak_bytes(lambda: anchor_direction(lineup.model, lineup.pairs, one_by_one, lineup.rule))


def agreement(case: Case, quarter: Case, sizes: Sizes) -> Figures:
    """Rank correlation with the exact step, and how far the batched exact step is from its reference."""
    figures: Figures = {}
    rows = case.candidates[: sizes.ranked]
    for rule in ("sgd", "adamw"):
        first_order: dict[str, torch.Tensor] = {}
        for name, one in (("all", case), ("quarter", quarter)):
            few = Case(one.proxy, rows, one.anchors[: sizes.ranked_anchors], one.collate)
            lineup = Lineup(few, Sizes(len(rows), sizes.ranked_anchors, 0, 0, 0, 0, sizes.batch_tokens), rule)
            first_order[f"reverse.{name}"] = lineup.reverse(lineup.directions("raw"))
            first_order[f"forward.{name}"] = lineup.forward(lineup.central())
            if name == "all":
                exact_batches = lineup.exact()
                exact = torch.cat([exact_batches.utilities(batch)[0].mean(1) for batch in lineup.batches])
                figures |= _difference_from_reference(lineup, sizes, exact, rule)
        for name, values in first_order.items():
            figures[f"spearman_with_exact.{name}.{rule}"] = spearman(values.tolist(), exact.tolist())
    return figures


def _difference_from_reference(lineup: Lineup, sizes: Sizes, exact: torch.Tensor, rule: str) -> Figures:
    """In units of the utilities' spread; the batched values come in the order of length."""
    if not sizes.exact_candidates:
        return {}
    order = sorted(range(len(lineup.case.candidates)), key=lambda i: len(lineup.case.candidates[i]["input_ids"]))
    count = 2 * sizes.exact_candidates
    reference = lineup.reference(count, sizes.ranked_anchors)().to(exact)
    place = torch.tensor([order.index(i) for i in range(count)], device=exact.device)
    return {f"exact_minus_reference_in_sd.{rule}": float((exact[place] - reference).abs().max() / exact.std())}


def growth(lineup: Lineup, sizes: Sizes, rounds: int) -> Figures:
    """How cost grows: candidates, anchors, groups."""
    case = lineup.case
    many = case.batches(case.anchors[: sizes.many_anchors], sizes.batch_tokens)
    few = lineup.directions("raw")
    figures: Figures = {"seconds_to_build_direction.anchors": seconds(lambda: lineup.directions("raw"))}
    figures["seconds_to_build_direction.many_anchors"] = seconds(lambda: lineup.directions("raw", anchors=many))
    directions = {
        "reverse.one_group": few,
        "reverse.many_anchors": lineup.directions("raw", anchors=many),
        "reverse.20_groups": lineup.directions("raw", [i % 20 for i in range(sizes.many_anchors)], many),
    }
    contestants: dict[str, Any] = {name: (lambda d=d: lineup.reverse(d)) for name, d in directions.items()}
    for part in (4, 2):
        some = case.batches(case.candidates[: sizes.candidates // part], sizes.batch_tokens)
        contestants[f"reverse.pool_1/{part}"] = lambda some=some: lineup.reverse(few, some)
    if sizes.exact_candidates:
        contestants["reference.many_anchors"] = lineup.reference(1, sizes.many_anchors)
    times = interleaved(contestants, rounds)
    figures["many_anchors_over_few.reverse"] = ratio(times, "reverse.many_anchors", "reverse.one_group")
    figures["20_groups_over_one.reverse"] = ratio(times, "reverse.20_groups", "reverse.one_group")
    for part in (4, 2):
        figures[f"whole_pool_over_1/{part}.reverse"] = ratio(times, "reverse.one_group", f"reverse.pool_1/{part}")
    if sizes.exact_candidates:
        figures["reverse_over_reference.many_anchors"] = ratio(
            times, "reference.many_anchors", "reverse.many_anchors", sizes.candidates
        )
    return figures


def growth_with_length(lineup: Lineup, rounds: int, lengths: tuple[int, ...] = (64, 128, 256, 512)) -> Figures:
    """Candidates of random text at several lengths, the same number of tokens of each."""
    generator = torch.Generator().manual_seed(5)
    directions = lineup.directions("mean_cosine")
    contestants: dict[str, Any] = {}
    tokens = max(lengths)
    for length in lengths:
        ids = torch.randint(5, 250, (tokens // length, length), generator=generator)
        row = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
        batch = {key: value.to(lineup.batches[0]["labels"].device) for key, value in row.items()}
        contestants[f"reverse.{length}"] = lambda batch=batch: lineup.reverse(directions, [batch])
    times = interleaved(contestants, rounds)
    return {
        f"tokens_per_second_at_length.{length}": tokens / statistics.median(times[f"reverse.{length}"])
        for length in lengths
    }


def half_precision(case: Case, sizes: Sizes) -> Figures:
    """bfloat16 base weights under the same float32 adapters, against float32."""
    rows, anchors = case.candidates, case.anchors[: sizes.anchors]
    half = copy.deepcopy(case.proxy)
    for name, parameter in half.model.named_parameters():
        if ".lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    figures: Figures = {}
    whole = Sizes(len(rows), sizes.anchors, 0, 0, 0, 0, sizes.batch_tokens)
    for rule in ("sgd", "adamw"):
        precise = Lineup(Case(case.proxy, rows, anchors, case.collate), whole, rule)
        lineup = Lineup(Case(half, rows, anchors, case.collate), whole, rule)
        # The same quantity in both, the slope along the anchor direction: with AdamW `reverse` itself gives the true
        # step's utility, which no directional derivative is.
        truth = precise.slopes_by_backward().tolist()
        reverse = spearman(lineup.slopes_by_backward().tolist(), truth)
        central = spearman(lineup.forward(lineup.central()).tolist(), truth)
        utilities = [each.reverse(each.directions("raw")).tolist() for each in (precise, lineup)]
        figures[f"spearman_bf16_reverse_utility.{rule}"] = spearman(*utilities)
        figures[f"spearman_bf16_reverse.{rule}"] = reverse
        figures[f"spearman_bf16_central.{rule}"] = central
        figures[f"bf16_central_over_reverse.{rule}"] = central / reverse
    return figures


def device_share(lineup: Lineup, rounds: int) -> Figures:
    """FLOP/s of scoring as a share of the device's measured matrix product peak."""
    directions = lineup.directions("mean_cosine")
    total = flops(lineup.model, lambda: lineup.reverse(directions))
    times = interleaved({"reverse": lambda: lineup.reverse(directions)}, rounds)
    dtype = next(p.dtype for n, p in lineup.model.named_parameters() if ".lora_" not in n)
    achieved, peak = total / statistics.median(times["reverse"]), matmul_peak(dtype)
    return {
        "teraflops.reverse": achieved / 1e12,
        "teraflops.matmul_peak": peak / 1e12,
        "share_of_matmul_peak.reverse": achieved / peak,
    }


def second_look_training(lineup: Lineup, rounds: int) -> Figures:
    """A training step of the second look, all weights: products in bfloat16 against float32."""
    few = lineup.case.batches(lineup.case.candidates[:4], lineup.sizes.batch_tokens)
    steps = lineup.whole_model_steps(few)
    times = interleaved(steps, rounds)
    tokens = sum(batch["labels"].numel() for batch in few)
    figures: Figures = {f"tokens_per_second.{name}": tokens / statistics.median(times[name]) for name in times}
    return figures | {"second_look_float32_over_bfloat16": ratio(times, *steps)}


def run_all(preset: Preset, sizes: Sizes, rounds: int) -> Iterator[Figures]:
    """Every section of one preset, as it is done."""
    case, quarter = preset.build(sizes, None), preset.build(sizes, preset.last_quarter(sizes))
    lineup, quarter_lineup = Lineup(case, sizes), Lineup(quarter, sizes)
    yield costs(lineup, quarter_lineup, sizes, rounds)
    yield memory(lineup)
    yield growth(lineup, sizes, rounds)
    yield growth_with_length(lineup, rounds)
    if not preset.trained:
        yield second_look_training(lineup, rounds)
    else:
        yield agreement(case, quarter, sizes)
        if preset.half_precision:
            yield half_precision(case, sizes)
    yield device_share(lineup, rounds)
