"""What the scripts that make tiny models share: a tokenizer trained on a task's words, and plain training."""

from __future__ import annotations

import json

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from ost_hf.data.collator import Collator
from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.functional.loss import per_sample_loss


def make_tokenizer(
    texts: list[str], special_tokens: list[str], chat_template: str, vocabulary: int = 400
) -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE of the texts' words behind Qwen's tokenizer class; ``special_tokens`` are not counted."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False)
    )
    bpe = json.loads(trained.to_str())["model"]
    tokenizer = transformers.Qwen2Tokenizer(
        vocab=bpe["vocab"],
        merges=[tuple(pair) for pair in bpe["merges"]],
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token=None,
        extra_special_tokens=special_tokens,
        model_max_length=1024,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def teach(model: torch.nn.Module, dataset: EncodedDataset, steps: int, batch_size: int, peak: float, seed: int) -> None:
    """Plain AdamW with a short warm-up and linear decay."""
    generator = torch.Generator().manual_seed(seed)
    collate = Collator.of(dataset.encoder.processing_class)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.0)
    order: list[int] = []
    for step in range(steps):
        if len(order) < batch_size:
            order = torch.randperm(len(dataset), generator=generator).tolist()
        batch = collate([dataset[order.pop()] for _ in range(batch_size)])
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1.0, (step + 1) / 20) * max(0.02, 1 - step / steps)
        loss = per_sample_loss(model, batch).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step:4d}  loss {loss.item():.3f}", flush=True)
