"""Representation-based selection, RDS+ (Ivison et al. 2025, arXiv 2503.01807).

Each row, prompt and answer, becomes one vector: the position-weighted mean of the *base* model's last hidden states
(the weights of SGPT, Muennighoff 2022, arXiv 2202.08904), and rows are compared with anchors by cosine:

    e(z) = sum_t t h_t / sum_t t,  t = 1..T          utility(z) = max over anchors v of cos(e(z), e(v))

h is what enters the output head, after the final norm; the adapter is off.

The paper has no score of a row alone: it goes round the anchors, each taking its nearest row that is still there.
The maximum is the pointwise score nearest to that. With ``per_anchor`` each row keeps its cosine with every anchor,
from which a selection can go round the anchors as the paper does. The authors' code counts padding in; here only a
row's own tokens have a position, so that no vector depends on the batch.

Letters: B samples, T tokens, D hidden size, V anchors.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ost_hf.data.encoding.dataset import EncodedDataset
from ost_hf.data.encoding.encoded import Encoded, Features
from ost_hf.functional.lora import LoraPair, replaced_forward
from ost_hf.functional.pooling import position_weighted_mean
from ost_hf.proxy.model import Proxy
from ost_hf.scorers.inputs import ToDevice, anchor_groups, encode_anchors, forward_batch_tokens, over_anchors
from ost_hf.scorers.registry import ANCHORS, PROXY, register


@register("rds", needs=(PROXY, ANCHORS), columns={"per_anchor": "anchor_similarities", "group_by": "group:"})
class RDSScorer:
    """Ranks by the cosine with the nearest anchor; with ``group_by``, a column has that of each group.

    Args:
        config: Batch limits, ``group_by``, ``per_anchor``.
        proxy: The proxy; only its base model is asked.
        anchors: The anchors, encoded for the proxy.

    Raises:
        DataError: If an anchor cannot be encoded, or there is no column to group by.
        ModelError: If an anchor does not fit into the device's memory.
    """

    batch_size: int | None
    passes = 1

    def __init__(self, config: Any, proxy: Proxy, anchors: EncodedDataset, **unused: Any):
        self.batch_size, self.batch_tokens = config.batch_size, forward_batch_tokens(config)
        self.proxy, self.per_anchor = proxy, config.per_anchor
        self._inputs = ToDevice(proxy.processing_class)
        encoded = encode_anchors(anchors)
        self.setup_passes = len(encoded)
        self.group_names, numbers = anchor_groups(anchors, config.group_by)
        self.group_of = torch.tensor(numbers)
        vectors = {
            row.row: vector
            for batch, embeddings in over_anchors(self._embed, encoded, self.batch_tokens)
            for row, vector in zip(batch, embeddings, strict=True)
        }
        self.anchors_VD = torch.stack([vectors[row.row] for row in encoded])

    def score(self, batch: list[Encoded]) -> Mapping[str, Tensor]:
        """Nearness of a batch of candidates to the anchors."""
        cosine_BV = (self._embed(batch) @ self.anchors_VD.T).cpu()
        columns = {"utility": cosine_BV.amax(1)}
        for number, name in enumerate(self.group_names):
            columns[f"group:{name}"] = cosine_BV[:, self.group_of == number].amax(1)
        # Not a utility for each anchor: below zero a similarity does not say that the row hurts.
        return columns | ({"anchor_similarities": cosine_BV} if self.per_anchor else {})

    def _embed(self, rows: list[Encoded]) -> Tensor:
        """Unit vectors ``[B, D]``."""
        with torch.inference_mode():
            return normalize(embeddings(self.proxy.model, self.proxy.pairs, self._inputs(rows)), dim=1)


def embeddings(model: Any, pairs: list[LoraPair], batch: Features) -> Tensor:
    """Position-weighted means of the base model's last hidden states.

    Args:
        model: The proxy.
        pairs: Its adapted layers.
        batch: Model inputs of B rows, padded on the right.

    Returns:
        ``[B, D]``, float32 (float64 for a float64 model).
    """
    pooled: list[Tensor] = []

    def pool(hidden_BTD: Tensor) -> Tensor:
        pooled.append(position_weighted_mean(hidden_BTD, batch["attention_mask"]))
        return hidden_BTD

    # PEFT's own switch would leave the adapter with parameters that require gradients. (A module itself in the place
    # of a method would become a submodule.) In the head's place the hidden states are pooled: no logits are made.
    adapter_off: dict[Any, Any] = {pair.layer: partial(pair.base) for pair in pairs}
    with replaced_forward({**adapter_off, model.get_output_embeddings(): pool}):
        model(**{key: value for key, value in batch.items() if key != "labels"}, use_cache=False)
    return pooled[0]
