"""Batched first-order utilities against one-by-one autograd."""

from __future__ import annotations

import pytest
import torch

from ost_hf.functional.exact import sample_gradient
from ost_hf.functional.lora import LoraPair
from ost_hf.functional.reverse import anchor_directions, first_order_utilities, per_sample_gradients
from ost_hf.functional.step import UpdateRule


def samples_of(batch) -> list:
    """A batch of image rows as batches of one; each row has one image of equal size."""
    count = len(batch["labels"])
    patches = len(batch["pixel_values"]) // count
    return [
        {k: v[i * patches : (i + 1) * patches] if k == "pixel_values" else v[i : i + 1] for k, v in batch.items()}
        for i in range(count)
    ]


def flat_gradients(case, samples) -> torch.Tensor:
    """One gradient after the other, ``[samples, parameters]``."""
    rows = [sample_gradient(case.model, case.parameters, sample)[1] for sample in samples]
    return torch.stack([torch.cat([row[name].flatten() for name in case.parameters]) for row in rows])


def flat_preconditioner(case, rule: UpdateRule) -> torch.Tensor:
    return torch.cat([rule.preconditioner(name, p.detach()).flatten() for name, p in case.parameters.items()])


def anchor_gradients(case) -> torch.Tensor:
    return flat_gradients(case, [sample for batch in case.anchors for sample in samples_of(batch)])


def test_per_sample_gradients_are_those_of_autograd(case) -> None:
    collected: dict[str, torch.Tensor] = {}
    loss = per_sample_gradients(case.model, case.pairs, case.batch, collected.__setitem__)
    assert set(collected) == set(case.parameters)
    for index, candidate in enumerate(case.candidates):
        expected_loss, expected = sample_gradient(case.model, case.parameters, candidate)
        torch.testing.assert_close(loss[index], expected_loss, rtol=1e-9, atol=1e-12)
        for name, gradient in expected.items():
            torch.testing.assert_close(collected[name][index], gradient, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("rule_name", ["sgd", "adamw", "lion"])
def test_raw_is_the_inner_product_with_the_displacement(case, rule_name: str) -> None:
    rule = UpdateRule(rule_name, 1e-3, weight_decay=0.0, state=case.adam)
    directions = anchor_directions(case.model, case.pairs, case.anchors, rule, "raw", column_of=range(12))
    ours = first_order_utilities(case.model, case.pairs, case.batch, directions, rule)
    anchors = anchor_gradients(case)
    for index, candidate in enumerate(case.candidates):
        _, gradients = sample_gradient(case.model, case.parameters, candidate)
        moves = [rule.displacement(name, gradients[name][None]).flatten() for name in case.parameters]
        expected = -(anchors @ torch.cat(moves))
        torch.testing.assert_close(ours.utility[index], expected, rtol=1e-7, atol=1e-13)


@pytest.mark.parametrize("rule_name", ["sgd", "adamw", "lion"])
def test_mean_cosine_is_the_cosine_of_preconditioned_gradients(case, rule_name: str) -> None:
    rule = UpdateRule(rule_name, 1e-3, state=case.adam)
    directions = anchor_directions(case.model, case.pairs, case.anchors, rule, "mean_cosine", column_of=range(12))
    ours = first_order_utilities(case.model, case.pairs, case.batch, directions, rule)
    root = flat_preconditioner(case, rule).sqrt()
    anchors, candidates = anchor_gradients(case) * root, flat_gradients(case, case.candidates) * root
    expected = torch.nn.functional.cosine_similarity(candidates[:, None], anchors[None], dim=-1)
    torch.testing.assert_close(ours.utility, expected, rtol=1e-7, atol=1e-10)
    assert ours.utility.abs().max() <= 1


GROUPS = [0, 1, 0, 2, 2, 1, 1, 1, 0, 1, 2, 1]


@pytest.mark.parametrize("utility", ["raw", "mean_cosine"])
def test_columns_hold_the_means_of_their_anchors(case, utility: str) -> None:
    rule = UpdateRule("adamw", 1e-3, state=case.adam)

    def utilities(column_of):
        directions = anchor_directions(case.model, case.pairs, case.anchors, rule, utility, column_of)
        return first_order_utilities(case.model, case.pairs, case.batch, directions, rule).utility, directions.share

    each, _ = utilities(range(12))
    groups, share = utilities(GROUPS)
    whole, _ = utilities(None)
    assert groups.shape[1] == 3
    for group in range(3):
        members = [i for i, number in enumerate(GROUPS) if number == group]
        torch.testing.assert_close(groups[:, group], each[:, members].mean(1), rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(groups @ share, each.mean(1), rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(whole[:, 0], each.mean(1), rtol=1e-9, atol=1e-14)


def test_every_anchor_needs_a_column(case) -> None:
    rule = UpdateRule("sgd", 1e-3)
    with pytest.raises(ValueError, match="a column for each of 12 anchors, got 3"):
        anchor_directions(case.model, case.pairs, case.anchors, rule, column_of=[0, 0, 1])


def test_utility_that_has_no_direction_of_its_own_is_refused(case) -> None:
    with pytest.raises(ValueError, match="must be raw or mean_cosine, got 'relative'"):
        anchor_directions(case.model, case.pairs, case.anchors, UpdateRule("sgd", 1e-3), "relative")


def test_gradient_norm_is_that_of_the_plain_gradient(case) -> None:
    rule = UpdateRule("sgd", 1e-3)
    directions = anchor_directions(case.model, case.pairs, case.anchors, rule)
    ours = first_order_utilities(case.model, case.pairs, case.batch, directions, rule)
    torch.testing.assert_close(ours.grad_norm, flat_gradients(case, case.candidates).norm(dim=1), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("utility", ["raw", "mean_cosine"])
def test_utilities_do_not_depend_on_batch_size(case, utility: str) -> None:
    rule = UpdateRule("adamw", 1e-3, state=case.adam)
    directions = anchor_directions(case.model, case.pairs, case.anchors, rule, utility)
    together = first_order_utilities(case.model, case.pairs, case.batch, directions, rule).utility
    alone = torch.cat(
        [first_order_utilities(case.model, case.pairs, one, directions, rule).utility for one in case.candidates]
    )
    assert (together - alone).abs().max() < 1e-6 * together.std()


def test_no_parameter_gets_a_gradient_and_no_hook_stays(case) -> None:
    per_sample_gradients(case.model, case.pairs, case.batch, lambda name, gradient: None)
    assert all(parameter.grad is None for parameter in case.model.parameters())
    assert not any("forward" in pair.layer.__dict__ for pair in case.pairs)


def test_layer_that_does_not_run_is_an_error(case) -> None:
    stranger = torch.nn.Linear(4, 4)
    pairs = [*case.pairs, LoraPair("stranger.a", "stranger.b", stranger, stranger, stranger, 1.0)]
    with pytest.raises(RuntimeError, match=r"did not run exactly once, such as stranger\.b"):
        per_sample_gradients(case.model, pairs, case.batch, lambda name, gradient: None)
