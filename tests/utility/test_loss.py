"""Per-sample loss against the plain formula."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, pad

from ost_hf.utility.loss import per_sample_loss


def plain_loss(model, batch) -> torch.Tensor:
    """All logits, one sample at a time."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    logits = model(**inputs).logits
    losses = [cross_entropy(row[:-1], labels[1:]) for row, labels in zip(logits, batch["labels"], strict=True)]
    return torch.stack(losses)


def test_loss_is_mean_cross_entropy_over_answer_tokens(case) -> None:
    with torch.no_grad():
        torch.testing.assert_close(
            per_sample_loss(case.model, case.batch), plain_loss(case.model, case.batch), rtol=1e-10, atol=1e-12
        )


def test_loss_does_not_depend_on_batch_or_padding(case) -> None:
    with torch.no_grad():
        alone = torch.cat([per_sample_loss(case.model, candidate) for candidate in case.candidates])
        together = per_sample_loss(case.model, case.batch)
        wide = {
            key: pad(value, (0, 30), value=-100 if key == "labels" else 0)
            if value.shape == case.batch["input_ids"].shape
            else value
            for key, value in case.batch.items()
        }
        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(per_sample_loss(case.model, wide), alone, rtol=1e-9, atol=1e-11)


def test_loss_is_the_models_own_for_a_single_sample(case) -> None:
    with torch.no_grad():
        theirs = case.model(**case.candidates[0]).loss
        torch.testing.assert_close(
            per_sample_loss(case.model, case.candidates[0])[0], theirs.double(), rtol=1e-5, atol=0
        )


def test_sample_without_labels_has_no_number_and_leaves_the_others_theirs(case) -> None:
    with torch.no_grad():
        whole = per_sample_loss(case.model, case.batch)
        labels = case.batch["labels"].clone()
        labels[1] = -100
        loss = per_sample_loss(case.model, {**case.batch, "labels": labels})
    assert loss[1].isnan()
    keep = [0, 2, 3, 4]
    torch.testing.assert_close(loss[keep], whole[keep])


def test_head_is_left_without_hooks(case) -> None:
    per_sample_loss(case.model, case.candidates[0])
    assert not case.model.get_output_embeddings()._forward_pre_hooks
