"""Batched exact utilities against the readable reference."""

from __future__ import annotations

import pytest
import torch

from ost_hf.functional.batched import BatchedExact
from ost_hf.functional.exact import exact_utilities
from ost_hf.functional.step import UpdateRule

References = dict[tuple[str, float], tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module")
def references() -> References:
    """Those of each rule, once they are known: every case is the same."""
    return {}


def reference(case, rule: UpdateRule) -> tuple[torch.Tensor, torch.Tensor]:
    steps = list(exact_utilities(case.model, case.parameters, case.candidates, case.anchors, rule))
    return torch.stack([utility for utility, _ in steps]), torch.stack([loss for _, loss in steps])


@pytest.mark.parametrize("batch_tokens", [1, 700, 1500, pytest.param(5000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "weight_decay"), [("sgd", 0.0), ("adamw", 0.0), ("adamw", 0.1), ("lion", 0.1)])
def test_batched_steps_give_the_numbers_of_the_reference(
    case, references: References, name: str, weight_decay: float, batch_tokens: int
) -> None:
    rule = UpdateRule(name, 1e-3, weight_decay=weight_decay, state=case.adam)
    if (name, weight_decay) not in references:
        references[name, weight_decay] = reference(case, rule)
    expected_BV, expected_loss = references[name, weight_decay]
    exact = BatchedExact(case.model, case.pairs, case.anchors, rule, batch_tokens)
    utility_BV, loss = exact.utilities(case.batch)
    assert (utility_BV - expected_BV).abs().max() < 1e-6 * expected_BV.std()
    torch.testing.assert_close(loss, expected_loss)


def test_several_candidates_share_a_pass(case) -> None:
    exact = BatchedExact(case.model, case.pairs, case.anchors, UpdateRule("sgd", 1e-3), 1500)
    assert [anchor.copies for anchor in exact.anchors] == [1500 // b["labels"].numel() for b in case.anchors]
    assert max(anchor.copies for anchor in exact.anchors) > 2


@pytest.mark.parametrize("first", [0, 1, 3])
def test_layers_below_the_first_adapted_one_run_once(case, first: int) -> None:
    """With adapters on the last layers only, and the numbers of the reference all the same."""
    pairs = [pair for pair in case.pairs if int(pair.name_a.split("layers.")[1].split(".")[0]) >= first]
    parameters = {name: case.parameters[name] for pair in pairs for name in (pair.name_a, pair.name_b)}
    rule = UpdateRule("sgd", 1e-3)
    expected = torch.stack([u for u, _ in exact_utilities(case.model, parameters, case.candidates, case.anchors, rule)])
    exact = BatchedExact(case.model, pairs, case.anchors, rule, 1500)
    assert len(exact.anatomy.frozen_layers) == first
    base = case.model.get_base_model()
    calls = {"vision": 0, "below": 0}
    handles = [base.model.visual.register_forward_pre_hook(lambda *_: calls.update(vision=calls["vision"] + 1))]
    if first:
        # The layer itself is skipped, so what it is made of must stay silent.
        below = base.model.language_model.layers[first - 1].mlp
        handles.append(below.register_forward_pre_hook(lambda *_: calls.update(below=calls["below"] + 1)))
    utility = exact.utilities(case.batch)[0]
    for handle in handles:
        handle.remove()
    assert (utility - expected).abs().max() < 1e-6 * expected.std()
    # Only the candidates' own gradients need the images and the lower layers: one pass over their batch.
    assert calls["vision"] == 1
    assert calls["below"] == (1 if first else 0)
