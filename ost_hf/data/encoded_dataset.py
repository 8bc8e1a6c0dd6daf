"""Rows encoded on access."""

from __future__ import annotations

from functools import cached_property

from torch.utils.data import Dataset, get_worker_info

from ost_hf.data.encoded import Encoded, Features
from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding_cache import EncodingCache, shared_cache
from ost_hf.data.rows import Rows
from ost_hf.errors import ModelError


def check_tokenizer(rows: Rows, encoder: Encoder) -> None:
    """Refuses a tokenised pool made with another tokenizer than the encoder's.

    Raises:
        ModelError: If the pool does not say its tokenizer, or the vocabularies differ.
    """
    if rows.layout != "tokenized":
        return
    name = rows.config.tokenizer
    if name is None:
        raise ModelError(
            "the rows are input_ids/labels; name the tokenizer they were made with (`tokenizer`), "
            "so that a model with another one is not trained on the wrong tokens"
        )
    from transformers import AutoTokenizer

    if AutoTokenizer.from_pretrained(name).get_vocab() != encoder.tokenizer.get_vocab():
        raise ModelError(
            f"the rows were tokenised with {name}, whose vocabulary differs from {encoder.tokenizer.name_or_path}'s; "
            "give the rows as text (messages, prompt/completion or question/answer)"
        )


class EncodedDataset(Dataset[Features]):
    """Rows encoded on access, for a ``Trainer`` or a ``DataLoader``, and kept as ``encoding.cache_mib`` allows.

    Args:
        rows: The rows.
        encoder: The model's encoder.

    Raises:
        ModelError: If the rows are tokenised for another model.
    """

    def __init__(self, rows: Rows, encoder: Encoder):
        check_tokenizer(rows, encoder)
        self.rows = rows
        self.encoder = encoder

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _cache(self) -> EncodingCache:
        key = (self.rows.fingerprint, repr(self.rows.config), self.encoder.fingerprint)
        return shared_cache(key, self.encoder.config.cache_mib * 2**20)

    def encode(self, row: int) -> Encoded:
        """The encoded row with its status."""
        # A loader's worker sends rows through shared memory, one open file for each tensor as long as it is kept.
        if not self.encoder.config.cache_mib or get_worker_info() is not None:
            return self.encoder.encode(self.rows, row)
        encoded = self._cache.get(row)
        if encoded is None:
            encoded = self.encoder.encode(self.rows, row)
            self._cache.put(row, encoded)
        return encoded

    def keep(self, row: int) -> bool:
        """Encodes a row for later; false once the cache takes no more."""
        self.encode(row)
        return self.encoder.config.cache_mib > 0 and self._cache.get(row) is not None

    def __getitem__(self, row: int) -> Features:
        return self.encode(row).inputs()
