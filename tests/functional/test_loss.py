"""Per-sample loss against the plain formula."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy, pad

from ost_hf.functional.loss import per_sample_loss


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


def text_batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(5, 90, (3, 11))
    labels = ids.clone()
    labels[0, :6] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def tiny(config_class, **more) -> Any:
    torch.manual_seed(0)
    config = config_class(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        **more,
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval().double()


@pytest.mark.parametrize("chunk", [1, 5, 10**6])
@pytest.mark.parametrize(
    ("config_class", "more"),
    [
        (transformers.LlamaConfig, {}),
        # Logits changed after the head: it cannot be put off.
        (transformers.Gemma2Config, {"head_dim": 8, "final_logit_softcapping": 2.0}),
        (transformers.GraniteConfig, {"logits_scaling": 4.0}),
        (transformers.CohereConfig, {"logit_scale": 0.1}),
    ],
)
def test_pieces_of_the_head_change_neither_loss_nor_gradient(
    config_class, more, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ost_hf.functional.loss.CHUNK_ELEMENTS", 97 * chunk)
    model, batch = tiny(config_class, **more), text_batch()
    model.get_output_embeddings().requires_grad_(False)
    weight = model.get_decoder().layers[0].mlp.up_proj.weight
    with torch.no_grad():
        assert per_sample_loss(model, batch).requires_grad is False
    for _ in range(2):  # the first pass finds out what the model does with its logits
        loss = per_sample_loss(model, batch)
        logits = model(**batch).logits[:, :-1]
        expected = torch.stack(
            [cross_entropy(one, label) for one, label in zip(logits, batch["labels"][:, 1:], strict=True)]
        )
        torch.testing.assert_close(loss, expected)
        scale = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        ours, theirs = (torch.autograd.grad((scale * values).sum(), weight)[0] for values in (loss, expected))
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-14)


def test_what_replaces_the_heads_forward_still_does() -> None:
    """As hooks of Accelerate do, which put a function of their own in its place."""
    model, batch = tiny(transformers.LlamaConfig).requires_grad_(False), text_batch()
    head = model.get_output_embeddings()
    plain = type(head).forward
    head.forward = lambda hidden: 2 * plain(head, hidden)
    with torch.no_grad():
        expected = cross_entropy(model(**batch).logits[1, :-1], batch["labels"][1, 1:])
        torch.testing.assert_close(per_sample_loss(model, batch)[1], expected)
    assert "forward" in head.__dict__


def test_adapted_head_gets_its_gradient() -> None:
    model = peft.get_peft_model(tiny(transformers.LlamaConfig), peft.LoraConfig(target_modules=["lm_head"])).double()
    loss = per_sample_loss(model, text_batch())
    loss.sum().backward()
    assert model.get_output_embeddings().lora_B["default"].weight.grad.abs().max() > 0
