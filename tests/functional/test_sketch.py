"""Sketches keep inner products."""

from __future__ import annotations

import pytest
import torch

from ost_hf.functional.exact import sample_gradient
from ost_hf.functional.reverse import anchor_directions, first_order_utilities
from ost_hf.functional.sketch import Sketch
from ost_hf.functional.step import UpdateRule

SHAPES = {"first": (8, 64), "short": (3, 5), "last": (200,)}


def gradients(count: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(count, *shape, generator=generator).double() for name, shape in SHAPES.items()}


def sketched(sketch: Sketch, values: dict[str, torch.Tensor]) -> torch.Tensor:
    return sum(sketch.part(name, value) for name, value in values.items())


def flat(values: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.flatten(1) for value in values.values()], dim=1)


@pytest.mark.parametrize("size", [1, 16, 100, 1000])
def test_inner_products_are_kept_on_average(size: int) -> None:
    values = gradients(4)
    true = flat(values) @ flat(values).T
    estimates = torch.stack([(s := sketched(Sketch(size, seed), values)) @ s.T for seed in range(300)])
    norms = true.diagonal()
    deviation = ((norms[:, None] * norms + true**2) / size).sqrt()
    # Mean of 300 sketches: within four standard errors of the true value.
    assert ((estimates.mean(0) - true).abs() < 4 * deviation / 300**0.5 + 1e-9).all()
    # And the spread is what the docstring says, or less.
    assert (estimates.std(0) < 1.3 * deviation + 1e-9).all()


def test_sketch_is_linear() -> None:
    values, sketch = gradients(2), Sketch(32)
    whole = sketched(sketch, {name: value.sum(0, keepdim=True) for name, value in values.items()})
    torch.testing.assert_close(whole[0], sketched(sketch, values).sum(0))


def test_sketch_is_a_function_of_its_seed() -> None:
    values = gradients(2)
    assert torch.equal(sketched(Sketch(32, 1), values), sketched(Sketch(32, 1), values))
    assert not torch.equal(sketched(Sketch(32, 1), values), sketched(Sketch(32, 2), values))


def test_size_is_checked() -> None:
    with pytest.raises(ValueError, match="a sketch needs a size of at least 1, got 0"):
        Sketch(0)


@pytest.mark.slow
@pytest.mark.parametrize("utility", ["mean_cosine", "raw"])
def test_candidates_sketches_give_their_gradients_cosines(case, utility: str) -> None:
    rule = UpdateRule("adamw", 1e-3, state=case.adam)
    directions = anchor_directions(case.model, case.pairs, case.anchors, rule, utility)
    products = []
    for seed in range(40):
        scores = first_order_utilities(case.model, case.pairs, case.batch, directions, rule, Sketch(256, seed))
        assert scores.sketch is not None
        products.append(scores.sketch @ scores.sketch.T)
    # Of gradients under the square root of AdamW's preconditioner: what mean_cosine is made of.
    gradients = [sample_gradient(case.model, case.parameters, each)[1] for each in case.candidates]
    roots = {name: rule.preconditioner(name, p.detach()).sqrt() for name, p in case.parameters.items()}
    rows = torch.stack([torch.cat([(roots[n] * each[n]).flatten() for n in case.parameters]) for each in gradients])
    rows = rows / rows.norm(dim=1, keepdim=True)
    assert (torch.stack(products).mean(0) - rows @ rows.T).abs().max() < 4 * (2 / 256 / 40) ** 0.5
