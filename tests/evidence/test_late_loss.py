"""The second look's loss against the plain formula."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.nn.functional import softmax

from ost_hf.evidence.late_loss import late_loss
from ost_hf.functional.loss import per_sample_loss


def plain_late_loss(models, batch) -> list[float]:
    """One token at a time, from probabilities."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    probabilities = [softmax(model(**inputs).logits, -1) for model in models]
    losses = []
    for row, labels in enumerate(batch["labels"]):
        squares = []
        for place, token in enumerate(labels[1:].tolist()):
            if token != -100:
                mean = sum(float(each[row, place, token]) for each in probabilities) / len(models)
                squares.append(math.log(mean) ** 2)
        losses.append(math.sqrt(sum(squares) / len(squares)))
    return losses


@pytest.fixture
def three(case) -> list:
    models = [case.model, copy.deepcopy(case.model), copy.deepcopy(case.model)]
    generator = torch.Generator().manual_seed(0)
    for model in models[1:]:
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return models


@pytest.mark.parametrize("count", [1, 2, 3])
def test_late_loss_is_the_plain_formula(case, three, count: int) -> None:
    with torch.no_grad():
        expected = torch.tensor(plain_late_loss(three[:count], case.batch), dtype=torch.float64)
        torch.testing.assert_close(late_loss(three[:count], case.batch), expected, rtol=1e-9, atol=1e-11)


def test_of_one_model_it_is_at_least_the_mean_loss(case, three) -> None:
    with torch.no_grad():
        assert (late_loss(three[:1], case.batch) >= per_sample_loss(case.model, case.batch)).all()
        twice = late_loss([case.model, case.model], case.batch)
        torch.testing.assert_close(twice, late_loss([case.model], case.batch), rtol=1e-9, atol=1e-11)


def test_sample_without_labels_has_no_number(case) -> None:
    labels = case.batch["labels"].clone()
    labels[1] = -100
    with torch.no_grad():
        loss = late_loss([case.model], {**case.batch, "labels": labels})
    assert loss[1].isnan()
    assert loss[[0, 2, 3, 4]].isfinite().all()
