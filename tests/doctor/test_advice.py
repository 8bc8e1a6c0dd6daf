"""What the doctor says of figures: made-up ones, so that each case is seen."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ost_hf.doctor.advice import Findings, recommend, standing, warnings_of
from ost_hf.doctor.diagnosis import (
    AgainstFloat32,
    Cost,
    Diagnosis,
    Figures,
    Measurement,
    Sample,
    Setting,
    Structure,
    figures_of,
)
from ost_hf.doctor.page import page

STRUCTURE = Structure(
    model="m",
    precision="bfloat16",
    device="cuda:0",
    attention="sdpa",
    adapted_modules=4,
    by_name={"q_proj": 4},
    adapter_parameters=10,
    base_parameters=1000,
    linear_layers_left_alone=1,
    layers=4,
    layers_below=0,
    layers_above=0,
    fused_experts={},
    quantisation=None,
    warmup_steps=30,
)
SAMPLE = Sample(pool_rows=1000, drawn=32, usable=32, statuses={}, anchors=10)
SETTING = Setting("reverse", "raw", "adamw", 1e-4)


def measurement(
    precision: str, estimator: str, utility: str = "raw", snr=1e4, against=50.0, spearman=0.99, rate=100.0, gib=None
) -> Measurement:
    cost = Cost(rate, 50 * rate, 4, 0.1, 1000 / rate, gib)
    against_float32 = None if precision == "float32" else AgainstFloat32(1e-3, 1e-3 / against, against)
    figures = Figures(1e-3, 1e-3 / snr, 1e-3, 1e-3 / snr, snr, against_float32, spearman, cost)
    return Measurement(precision, estimator, utility, figures)


def everything(**changed: Measurement) -> list[Measurement]:
    """Both precisions, all well; ``bfloat16_exact=...`` puts another in a measurement's place."""
    made = {
        f"{precision}_{estimator}": measurement(precision, estimator, rate=5.0 if estimator == "exact" else 100.0)
        for precision in ("bfloat16", "float32")
        for estimator in ("reverse", "forward", "exact")
    }
    return list((made | changed).values())


def warnings(structure=STRUCTURE, sample=SAMPLE, setting=SETTING, measurements=()) -> list[str]:
    return warnings_of(Findings(structure, sample, setting, measurements))


def advice(measurements: list[Measurement], structure=STRUCTURE, setting=SETTING):
    return recommend(Findings(structure, SAMPLE, setting, measurements))


def test_figures_of_two_readings() -> None:
    cost = Cost(1, 1, 1, 0, 1)
    figures = figures_of([1.0, -2.0, 3.0], [1.1, -2.1, 3.2], cost, [1.5, -2.5, 3.5])
    assert figures.median_utility == 2
    assert figures.median_difference == pytest.approx(0.1)
    assert figures.noise == pytest.approx(math.sqrt(0.06 / 3))
    assert figures.snr == pytest.approx(20)
    assert figures.against_float32 == AgainstFloat32(2.5, 0.5, 5)
    assert figures_of([1.0, 2.0], [1.0, 2.0], cost).snr == math.inf
    # Rounded to nothing twice is not infinitely far above noise.
    assert figures_of([0.0, 0.0], [0.0, 0.0], cost).snr == 0


def test_silence_where_all_is_well() -> None:
    assert warnings(measurements=everything()) == []


def test_exact_is_held_against_float32_and_first_order_is_not() -> None:
    assert standing(measurement("bfloat16", "exact", against=3)) == 3
    assert standing(measurement("bfloat16", "reverse", against=3)) == 1e4
    assert standing(Measurement("bfloat16", "exact", "raw", refused="no")) == 0


def test_noise_is_named_with_its_remedies() -> None:
    [said] = warnings(measurements=everything(bfloat16_exact=measurement("bfloat16", "exact", against=5)))
    assert said == (
        "the exact utility at learning rate 0.0001 in bfloat16 is only 5 times its noise: median |utility| 1.0e-03 in "
        "float32, off by 2.0e-04; use estimator reverse, or dtype float32, or a larger learning rate"
    )
    [said] = warnings(measurements=everything(float32_exact=measurement("float32", "exact", snr=0.5)))
    assert said == (
        "the exact utility at learning rate 0.0001 in float32 is under its noise: median |utility| 1.0e-03, noise "
        "2.0e-03; its ranking is noise; use estimator reverse, or a larger learning rate"
    )
    [said] = warnings(measurements=everything(bfloat16_reverse=measurement("bfloat16", "reverse", snr=7)))
    assert said.startswith("the raw utility of estimator reverse at learning rate 0.0001 in bfloat16 is only 7 times")
    assert said.endswith("; use dtype float32")


def test_rows_structure_and_ranking_are_warned_about() -> None:
    assert (
        "not ok: 2 bad_image, 1 truncated"
        in warnings(sample=replace(SAMPLE, statuses={"truncated": 1, "bad_image": 2}))[0]
    )
    assert "the proxy is cold" in warnings(replace(STRUCTURE, warmup_steps=0))[0]
    assert "quantised (gptq)" in warnings(replace(STRUCTURE, quantisation="gptq"))[0]
    assert "outside the decoder's" in warnings(replace(STRUCTURE, layers=0))[0]
    unlike = everything(bfloat16_reverse=measurement("bfloat16", "reverse", spearman=0.5))
    assert "ranks unlike exact in float32: Spearman 0.500" in warnings(measurements=unlike)[0]
    # A cosine need not rank like the raw drop; the raw utility beside it still tells whether first order holds.
    assert warnings(setting=replace(SETTING, utility="mean_cosine"), measurements=unlike) == warnings(
        measurements=unlike
    )
    # An exact that is noise itself is no judge.
    noisy = [m for m in unlike if (m.precision, m.estimator) != ("float32", "exact")]
    assert len(warnings(measurements=[*noisy, measurement("float32", "exact", snr=2)])) == 1


def test_reverse_is_the_default_with_its_reasons() -> None:
    found = advice(everything())
    assert (found.estimator, found.dtype) == ("reverse", "bfloat16")
    assert (
        "Spearman of 0.9900 with exact in float32; exact takes 20 times as long; forward takes 1 times" in found.reason
    )
    memory = everything(
        bfloat16_reverse=measurement("bfloat16", "reverse", gib=10.0),
        bfloat16_forward=measurement("bfloat16", "forward", gib=4.0),
    )
    assert "forward takes 1 times as long and 0.4 of its memory" in advice(memory).reason


@pytest.mark.parametrize(
    ("changed", "estimator", "dtype", "reason"),
    [
        ({"snr": 5}, "reverse", "float32", "in bfloat16 reverse stands only 5 times above its noise"),
        ({"spearman": 0.93}, "reverse", "float32", "reverse ranks worse (Spearman with exact 0.930, in float32 0.990)"),
        ({"rate": 50.0}, "reverse", "float32", "ranks alike in it at 2.0 times the speed of bfloat16"),
    ],
)
def test_another_precision_is_recommended_for_a_reason(changed, estimator: str, dtype: str, reason: str) -> None:
    found = advice(everything(bfloat16_reverse=measurement("bfloat16", "reverse", **changed)))
    assert (found.estimator, found.dtype) == (estimator, dtype)
    assert reason in found.reason


def test_exact_is_recommended_where_first_order_fails() -> None:
    unlike = {f"{p}_reverse": measurement(p, "reverse", spearman=0.6) for p in ("bfloat16", "float32")}
    found = advice(everything(**unlike))
    assert found.estimator == "exact"
    assert "first order ranks unlike it (Spearman 0.600)" in found.reason
    assert advice(everything(**unlike), setting=replace(SETTING, utility="mean_cosine")).estimator == "reverse"
    drowned = measurement("bfloat16", "exact", against=2)
    assert advice(everything(**unlike, bfloat16_exact=drowned)).estimator == "reverse"


def test_forward_is_recommended_where_reverse_does_not_fit() -> None:
    refused = {f"{p}_reverse": Measurement(p, "reverse", "raw", refused="out") for p in ("bfloat16", "float32")}
    found = advice(everything(**refused))
    assert (found.estimator, found.dtype) == ("forward", "bfloat16")
    assert "reverse cannot score in bfloat16 (out)" in found.reason
    nothing = [replace(m, figures=None, refused="out") for m in everything()]
    assert advice(nothing).estimator is None
    assert "no estimator can score this pool in bfloat16. reverse: out" in advice(nothing).reason


def test_page_of_a_large_model_on_an_accelerator_fits() -> None:
    methods = [("reverse", "raw"), ("reverse", "mean_cosine"), ("forward", "raw"), ("exact", "raw")]
    made = [measurement(p, *m, rate=123456.0, gib=71.25) for p in ("bfloat16", "float32") for m in methods]
    large = replace(STRUCTURE, fused_experts={"layers.*.mlp.experts.gate_up_proj": 20_000_000_000}, quantisation="gptq")
    sample = replace(SAMPLE, pool_rows=351_157, statuses={"too_long": 3})
    said = warnings(large, sample, measurements=made)
    text = page(Diagnosis(large, sample, SETTING, made, said, advice(made, large)))
    assert max(map(len, text.splitlines())) <= 110
    assert "71.2" in text
    assert "out of LoRA's reach: 20,000,000,000 parameters" in " ".join(text.split())
    assert "GiB" not in page(Diagnosis(large, sample, SETTING, everything(), said, advice(made, large)))
    print(text)
