"""One row in the common shape, and what says that a row cannot be used."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ost_hf.tables.statuses import BAD_ROW

Message = dict[str, Any]

_DETAIL_LENGTH = 300
_ADDRESS = re.compile(r" (?:object )?at 0x[0-9a-fA-F]+")
_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[\w.@+-]+/)+")


class RowError(Exception):
    """One row that cannot be used; carries the status it gets in the tables."""

    def __init__(self, status: str, detail: str):
        super().__init__(detail)
        self.status = status
        self.detail = detail

    @classmethod
    def of(cls, error: Exception, doing: str, status: str = BAD_ROW) -> RowError:
        """What any exception says about a row: where it came up, its type, and its message in short.

        Args:
            error: The exception.
            doing: What failed, such as ``the chat template fails``.
            status: The row's status.
        """
        reason = _FOLDERS.sub("", _ADDRESS.sub("", str(error) or "no message"))
        reason = " ".join(reason.split())
        if len(reason) > _DETAIL_LENGTH:
            reason = reason[:_DETAIL_LENGTH] + " ..."
        return cls(status, f"{doing} ({type(error).__name__}: {reason})")


@dataclass
class Example:
    """One row in the common shape.

    ``messages`` holds content as a list of typed parts; an image part is a bare ``{"type": "image"}`` and
    its image stands at the same place in ``images``, not yet decoded. ``arguments`` is what the row gives the
    chat template beside its messages: ``tools``, ``documents``, and arguments by name. A tokenised row has
    ``tokens`` instead. ``templated`` is false for plain prompt/completion text, which a tokenizer without a chat
    template may simply concatenate.
    """

    example_id: str
    row: int
    messages: list[Message] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)
    tokens: dict[str, list[int]] | None = None
    templated: bool = True
