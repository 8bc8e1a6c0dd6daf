"""One row in the common shape, and what says that a row cannot be used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ost_hf.errors import brief, reason_of
from ost_hf.tables.statuses import BAD_ROW

Message = dict[str, Any]


class RowError(Exception):
    """One row that cannot be used; carries the status it gets in the tables, and a detail that is brief and clean."""

    def __init__(self, status: str, detail: str):
        detail = brief(detail)
        super().__init__(detail)
        self.status = status
        self.detail = detail

    @classmethod
    def of(cls, error: BaseException, doing: str, status: str = BAD_ROW) -> RowError:
        """What any exception says about a row: where it came up, its type, and its message in brief.

        Args:
            error: The exception.
            doing: What failed, such as ``the chat template fails``.
            status: The row's status.
        """
        return cls(status, f"{doing} ({reason_of(error)})")

    def __reduce__(self) -> tuple[type[RowError], tuple[str, str]]:
        # Errors travel from loader workers; ``Exception`` would make one of the detail alone.
        return RowError, (self.status, self.detail)


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
