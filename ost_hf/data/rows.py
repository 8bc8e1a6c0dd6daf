"""One shape for all rows: the accepted column layouts become ``Example``, and each gets a stable id.

Four layouts are accepted, told apart by their columns in this order, but that one whose columns the configuration
names comes first:

* ``input_ids`` and ``labels`` (already tokenised),
* ``messages`` with string or typed content, with ``images`` or ``image``,
* ``prompt`` and ``completion`` (strings or message lists),
* ``question`` and ``answer``, with ``image``/``images``.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets

from ost_hf.data.config import DatasetConfig
from ost_hf.data.images import image_key
from ost_hf.data.loading import load_dataset, without_decoding
from ost_hf.errors import DataError
from ost_hf.parallel import gather_objects, share, state
from ost_hf.tables.statuses import BAD_IMAGE, BAD_ROW

Message = dict[str, Any]

_MASK = "attention_mask"

# The options that name a layout's columns, and their defaults.
_LAYOUTS = {
    "messages": ("messages_column",),
    "prompt_completion": ("prompt_column", "completion_column"),
    "question_answer": ("question_column", "answer_column"),
}
_NAMES = {option: getattr(DatasetConfig, option) for options in _LAYOUTS.values() for option in options}


class RowError(Exception):
    """One row that cannot be used; carries the status it gets in the tables."""

    def __init__(self, status: str, detail: str):
        super().__init__(detail)
        self.status = status
        self.detail = detail


@dataclass
class Example:
    """One row in the common shape.

    ``messages`` holds content as a list of typed parts; an image part is a bare ``{"type": "image"}`` and
    its image stands at the same place in ``images``, not yet decoded. A tokenised row has ``tokens``
    instead. ``templated`` is false for plain prompt/completion text, which a tokenizer without a chat
    template may simply concatenate.
    """

    example_id: str
    row: int
    messages: list[Message] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    tokens: dict[str, list[int]] | None = None
    templated: bool = True


class Rows:
    """A dataset in one of the accepted layouts, with an ``example_id`` for every row.

    Args:
        dataset: The rows in memory or memory-mapped.
        config: Column names, id column, system prompt. Defaults suit the standard column names.

    Raises:
        DataError: If there are no rows, no layout fits the columns, or the id column has duplicates.
    """

    def __init__(self, dataset: datasets.Dataset, config: DatasetConfig | None = None):
        self.config = config or DatasetConfig(path="in memory")
        if len(dataset) == 0:
            raise DataError("the dataset has no rows")
        self.layout = _find_layout(dataset.column_names, self.config)
        self.images_column = _find_images_column(dataset.column_names, self.config)
        # Kept whole, with its own columns: strata, kinds and published rows are read from it.
        self.dataset = dataset
        content = list(_content_columns(self.layout, self.config))
        if self.layout == "tokenized":
            content += [_MASK] if _MASK in dataset.column_names else []
        elif self.images_column:
            content.append(self.images_column)
        self._content = without_decoding(dataset.with_format(None).select_columns(content), content)

    @classmethod
    def load(cls, config: DatasetConfig) -> Rows:
        """Loads the rows that ``config`` names."""
        return cls(load_dataset(config), config)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> Example:
        """The row in the common shape.

        Raises:
            RowError: If the row's own content is malformed (status ``bad_row`` or ``bad_image``).
        """
        example = self.stored(row)
        system = self.config.system_prompt
        if system and example.tokens is None and example.messages[0]["role"] != "system":
            example.messages = [{"role": "system", "content": [_text_part(system)]}, *example.messages]
            example.templated = True
        return example

    def stored(self, row: int) -> Example:
        """The row as it lies in the data, without the configuration's system prompt.

        Raises:
            RowError: As above.
        """
        return self._parse(self._content[row], row, self.example_ids[row])

    def select(self, indices: Iterable[int]) -> Rows:
        """The rows at ``indices``, in that order, keeping their ids."""
        indices = list(indices)
        chosen = Rows(self.dataset.select(indices), self.config)
        chosen.__dict__["content_hashes"] = [self.content_hashes[i] for i in indices]
        chosen.__dict__["example_ids"] = [self.example_ids[i] for i in indices]
        return chosen

    @cached_property
    def content_hashes(self) -> list[str]:
        """A hash of what each row says (messages and image bytes), equal for exact duplicates."""
        return [self._hash(self._content[row], row) for row in range(len(self))]

    def hash_together(self) -> None:
        """Computes ``content_hashes`` now, with every process hashing its share of the rows.

        Called on all processes of a run, or on none: images are read once, not once in each process.
        """
        if state().num_processes > 1 or "content_hashes" not in self.__dict__:
            mine = [(row, self._hash(self._content[row], row)) for row in share(list(range(len(self))))]
            self.__dict__["content_hashes"] = [content_hash for _, content_hash in sorted(gather_objects(mine))]

    @cached_property
    def example_ids(self) -> list[str]:
        """The user's column, or the content hash with an occurrence number: pools hold exact duplicates."""
        column = self.config.id_column
        if column is None:
            seen: Counter[str] = Counter()
            ids = []
            for content_hash in self.content_hashes:
                ids.append(f"{content_hash}-{seen[content_hash]}")
                seen[content_hash] += 1
            return ids
        _require_columns([column], self.dataset.column_names, "id_column")
        ids = [str(value) for value in self.dataset.with_format(None)[column]]
        twice = [name for name, count in Counter(ids).items() if count > 1]
        if twice:
            raise DataError(
                f"id_column {column!r} is not unique: {len(twice)} values occur more than once, such as {twice[0]!r}; "
                "name another column, or none to use content hashes"
            )
        return ids

    @cached_property
    def fingerprint(self) -> str:
        """A hash over the ids and contents of all rows in order."""
        digest = hashlib.blake2b(digest_size=16)
        for example_id, content_hash in zip(self.example_ids, self.content_hashes, strict=True):
            digest.update(f"{example_id}\0{content_hash}\n".encode())
        return digest.hexdigest()

    def column_digest(self, column: str) -> str | None:
        """A hash of the values of one of the dataset's own columns; ``None`` where there is no such column."""
        if column not in self.dataset.column_names:
            return None
        values = json.dumps(list(self.dataset[column]), default=str)
        return hashlib.blake2b(values.encode(), digest_size=16).hexdigest()

    def _hash(self, record: dict[str, Any], row: int) -> str:
        try:
            example = self._parse(record, row, "")
            if example.tokens is not None:
                said: Any = [example.tokens["input_ids"], example.tokens["labels"]]
            else:
                said = [example.messages, [image_key(image, self.folder) for image in example.images]]
        except RowError:
            said = ["malformed", {name: str(value) for name, value in record.items()}]
        text = json.dumps(said, sort_keys=True, default=str, ensure_ascii=False)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()

    @property
    def folder(self) -> Path | None:
        """Where relative image paths start: beside the file they were read from; ``None`` without files."""
        path = Path(self.config.path).expanduser()
        return path.parent if path.is_file() else (path if path.is_dir() else None)

    def _parse(self, record: dict[str, Any], row: int, example_id: str) -> Example:
        config = self.config
        if self.layout == "tokenized":
            return Example(example_id, row, tokens=_tokens_of(record))

        templated = True
        if self.layout == "messages":
            messages = _as_messages(record[config.messages_column], "user")
        else:
            first, second = (as_text(record[name]) for name in _content_columns(self.layout, config))
            templated = not (isinstance(first, str) and isinstance(second, str))
            messages = _as_messages(first, "user") + _as_messages(second, "assistant")
        images = _as_list(record.get(self.images_column)) if self.images_column else []
        images = _place_images(messages, images)
        return Example(example_id, row, messages, images, templated=templated)


def _tokens_of(record: dict[str, Any]) -> dict[str, list[int]]:
    """``input_ids`` and ``labels`` without the padding of a batch that the row was once in."""
    ids, labels = list(record["input_ids"] or []), list(record["labels"] or [])
    mask = list(record.get(_MASK) or [1] * len(ids))
    if len(labels) != len(ids) or len(mask) != len(ids) or not any(mask):
        raise RowError(BAD_ROW, "input_ids, labels and attention_mask must be of the same length and not empty")
    real = [place for place, value in enumerate(mask) if value]
    return {"input_ids": [ids[place] for place in real], "labels": [labels[place] for place in real]}


def _find_layout(columns: list[str], config: DatasetConfig) -> str:
    named = [option for option, default in _NAMES.items() if getattr(config, option) != default]
    # What is named is meant: a set may have `messages` beside the columns that are asked for.
    meant = [layout for layout in _LAYOUTS if set(_LAYOUTS[layout]) & set(named)]
    for layout in meant or ("tokenized", *_LAYOUTS):
        if set(_content_columns(layout, config)) <= set(columns):
            return layout
    for option in _LAYOUTS[meant[0]] if meant else ():
        _require_columns([getattr(config, option)], columns, option)
    raise DataError(
        f"no accepted layout fits the columns {', '.join(columns)}. Needed: {config.messages_column!r}; or "
        f"{config.prompt_column!r} and {config.completion_column!r}; or {config.question_column!r} and "
        f"{config.answer_column!r}; or 'input_ids' and 'labels'. Column names can be set "
        "(messages_column, prompt_column, completion_column, question_column, answer_column)"
    )


def _content_columns(layout: str, config: DatasetConfig) -> tuple[str, ...]:
    if layout == "tokenized":
        return ("input_ids", "labels")
    return tuple(getattr(config, option) for option in _LAYOUTS[layout])


def _find_images_column(columns: list[str], config: DatasetConfig) -> str | None:
    if config.images_column is not None:
        _require_columns([config.images_column], columns, "images_column")
        return config.images_column
    return next((name for name in ("images", "image") if name in columns), None)


def _require_columns(needed: list[str], columns: list[str], option: str) -> None:
    missing = [name for name in needed if name not in columns]
    if missing:
        raise DataError(f"{option}: there is no column {missing[0]!r}; there are: {', '.join(columns)}")


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def as_text(value: Any) -> Any:
    """A number as its text: readers of CSV and JSON make numbers of bare answers.

    One empty cell turns a CSV's whole numbers into floats: 2.0 was written 2.
    """
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _as_messages(value: Any, role: str) -> list[Message]:
    """A string becomes one message of ``role``; a list of messages gets its content typed."""
    if isinstance(value, str):
        return [{"role": role, "content": [_text_part(value)]}]
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise RowError(BAD_ROW, f"expected text or a list of messages, got {type(value).__name__}")
    messages = []
    for message in value:
        if not isinstance(message.get("role"), str):
            sharegpt = "from" in message and "value" in message
            hint = ": rename ShareGPT's from and value to role and content, human to user, gpt to assistant"
            raise RowError(BAD_ROW, "a message has no role" + (hint if sharegpt else ""))
        content = message.get("content")
        if isinstance(content, str):
            parts = [_text_part(content)]
        elif content is None or (isinstance(content, list) and all(isinstance(part, dict) for part in content)):
            # Arrow gives every struct all keys; the ones a part does not use are None.
            parts = [{k: v for k, v in part.items() if v is not None} for part in content or []]
        else:
            raise RowError(BAD_ROW, "the content of a message must be text or a list of typed parts")
        strange = [str(part.get("type")) for part in parts if part.get("type") not in ("text", "image")]
        if strange:
            raise RowError(BAD_ROW, f"content parts may be text or image, not {strange[0]}")
        extra = {k: v for k, v in message.items() if k not in ("role", "content") and v is not None}
        messages.append({"role": message["role"], "content": parts, **extra})
    return messages


def _place_images(messages: list[Message], column_images: list[Any]) -> list[Any]:
    """Matches image parts with images; without parts, the images open the first user message.

    Returns:
        The images in the order of the image parts, which are left bare.
    """
    parts = [part for message in messages for part in message["content"] if part.get("type") == "image"]
    inline = [_inline_image(part) for part in parts]
    if parts and all(image is not None for image in inline):
        images = inline
    elif parts:
        if len(parts) != len(column_images):
            raise RowError(BAD_IMAGE, f"{len(parts)} image placeholders but {len(column_images)} images")
        images = column_images
    else:
        images = column_images
        if images:
            user = next((message for message in messages if message["role"] == "user"), None)
            if user is None:
                raise RowError(BAD_ROW, "images but no user message to show them in")
            user["content"] = [*({"type": "image"} for _ in images), *user["content"]]
    for message in messages:
        message["content"] = [{"type": "image"} if p.get("type") == "image" else p for p in message["content"]]
    if any(image is None for image in images):
        raise RowError(BAD_IMAGE, "the image is missing")
    return images


def _inline_image(part: dict[str, Any]) -> Any | None:
    return next((part[key] for key in ("image", "path", "url") if part.get(key) is not None), None)
