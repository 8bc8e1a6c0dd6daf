"""Instruction-Following Difficulty (Li et al. 2024, "From Quantity to Quality", arXiv 2308.12032).

    IFD = l(answer | prompt) / l(answer)

the mean loss of the same T answer tokens with everything that stands before them and alone. Near 1 the prompt hardly
helps the proxy to the answer: a difficult instruction, worth learning from. Above 1 it makes the answer less likely:
prompt and answer do not belong together. The paper drops those; here they come last, the worst at the end:

    utility = IFD if IFD < 1, else -IFD

The paper asks a model after one epoch on a thousand rows, which here is the warm proxy.

The answer alone is the supervised tokens, of every turn one after the other, without image, behind one token that
starts a text (the tokenizer's beginning-of-sequence, or else end-of-sequence, or else padding token): without it the
answer's first token would not be predicted and the two losses would be means over different tokens. The paper's code
puts its template's response header there; a chat template's header is not in the labels, so it is left out here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ost_hf.data.encoding.encoded import IGNORE_INDEX, Encoded, Features
from ost_hf.errors import ModelError
from ost_hf.functional.loss import per_sample_loss
from ost_hf.proxy.model import Proxy
from ost_hf.scorers.inputs import BatchLimits, ToDevice, forward_batch_tokens
from ost_hf.scorers.registry import PROXY, register


@register("ifd", needs=(PROXY,), columns={"always": ("ifd", "answer_loss")})
class IFDScorer:
    """Ranks by how little the prompt helps; where it harms comes last.

    Columns: ``ifd``, and ``answer_loss``, the loss of the answer alone. ``loss`` is that after the prompt.

    Args:
        config: Batch limits.
        proxy: The proxy.

    Raises:
        ModelError: If the tokenizer has no token to begin a text with.
    """

    batch_size: int | None
    # The answer behind its prompt, and alone.
    passes = 2

    def __init__(self, config: BatchLimits, proxy: Proxy, **unused: Any):
        self.batch_size, self.batch_tokens = config.batch_size, forward_batch_tokens(config)
        self.model, self._inputs = proxy.model, ToDevice(proxy.processing_class)
        self.start = start_token(proxy.processing_class)

    def score(self, batch: list[Encoded]) -> Mapping[str, Tensor]:
        """Difficulties of a batch of candidates."""
        alone = [answer_alone(row.features, self.start) for row in batch if row.features is not None]
        with torch.inference_mode():
            loss_B = per_sample_loss(self.model, self._inputs(batch))
            answer_loss_B = per_sample_loss(self.model, self._inputs.features(alone))
        # An answer that is certain by itself divides by zero; a score that is not finite becomes the row's status.
        ifd_B = loss_B / answer_loss_B
        utility_B = torch.where(ifd_B < 1, ifd_B, -ifd_B)
        return {"utility": utility_B, "loss": loss_B, "ifd": ifd_B, "answer_loss": answer_loss_B}


def answer_alone(features: Features, start: int) -> Features:
    """A row's supervised tokens behind a start token.

    Args:
        features: An encoded row.
        start: The token put before the answer.

    Returns:
        Its features without the prompt and without images.
    """
    ids = features["input_ids"]
    # The first token of the whole row is never predicted: it would be a token more.
    places = (features["labels"][1:] != IGNORE_INDEX).nonzero()[:, 0] + 1
    per_token = {key: value[places] for key, value in features.items() if value.shape == ids.shape}
    before = dict.fromkeys(per_token, 0) | {"input_ids": start, "attention_mask": 1, "labels": IGNORE_INDEX}
    return {key: torch.cat([value.new_tensor([before[key]]), value]) for key, value in per_token.items()}


def start_token(processing_class: Any) -> int:
    """The token that starts a text by itself.

    Raises:
        ModelError: If the tokenizer has none.
    """
    tokenizer = getattr(processing_class, "tokenizer", processing_class)
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id):
        if token is not None:
            return token
    raise ModelError(
        f"{tokenizer.name_or_path} has no beginning-of-sequence, end-of-sequence or padding token to put before an "
        "answer that stands alone; the ifd scorer needs one"
    )
