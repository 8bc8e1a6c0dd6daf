"""Rows encoded on access."""

from __future__ import annotations

import logging
from functools import cached_property

from torch.utils.data import Dataset, get_worker_info

from ost_hf.data.chat.arguments import BY_NAME, DOCUMENTS, TOOLS
from ost_hf.data.encoding import Encoder
from ost_hf.data.encoding.cache import EncodingCache, shared_cache
from ost_hf.data.encoding.encoded import Encoded, Features
from ost_hf.data.rows import Rows
from ost_hf.errors import ModelError
from ost_hf.parallel import is_main

logger = logging.getLogger(__name__)


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


def name_unused(rows: Rows, encoder: Encoder) -> None:
    """Warns of columns that would say something to the chat template, and do not reach it."""
    variables = encoder.template.variables
    unread = [name for name in (TOOLS, DOCUMENTS) if name in rows.argument_columns and name not in variables]
    if unread:
        logger.warning("the chat template shows no %s: this column of the rows is not used", " and no ".join(unread))
    others = set(rows.dataset.column_names) - set(rows.content_columns) - {"messages", "add_generation_prompt"}
    if by_name := sorted(others & variables):
        logger.warning(
            "the chat template reads %s, and the rows have columns of that name, which are not given to it: put their "
            "values into a column %s", ", ".join(by_name), BY_NAME,
        )  # fmt: skip


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
        if rows.layout != "tokenized" and is_main():
            name_unused(rows, encoder)
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
