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
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import datasets

from ost_hf.data.arguments import COLUMNS as ARGUMENT_COLUMNS
from ost_hf.data.arguments import arguments_of
from ost_hf.data.config import DatasetConfig
from ost_hf.data.example import Example, RowError
from ost_hf.data.images import image_key
from ost_hf.data.loading import load_dataset, without_decoding
from ost_hf.data.parsing import MASK, as_list, as_messages, as_text, text_part, tokens_of
from ost_hf.data.placement import place_images
from ost_hf.errors import DataError
from ost_hf.parallel import gather_objects, share, state

# The options that name a layout's columns, and their defaults.
_LAYOUTS = {
    "messages": ("messages_column",),
    "prompt_completion": ("prompt_column", "completion_column"),
    "question_answer": ("question_column", "answer_column"),
}
_NAMES = {option: getattr(DatasetConfig, option) for options in _LAYOUTS.values() for option in options}


class Rows:
    """A dataset in one of the accepted layouts, with an ``example_id`` for every row.

    Args:
        dataset: The rows in memory or memory-mapped.
        config: Column names, id column, system prompt. Defaults suit the standard column names.

    Raises:
        DataError: If there are no rows, no layout fits the columns, the id column has duplicates, or the dataset
            makes its rows when they are read (``with_transform``).
    """

    def __init__(self, dataset: datasets.Dataset, config: DatasetConfig | None = None):
        self.config = config or DatasetConfig(path="in memory")
        if len(dataset) == 0:
            raise DataError("the dataset has no rows")
        shown = _shown_columns(dataset)
        self.argument_columns: list[str] = []
        self.layout = _find_layout(shown, self.config)
        self.images_column = _find_images_column(shown, self.config)
        # Kept whole, with its own columns: strata, kinds and published rows are read from it.
        self.dataset = dataset.with_format(None)
        content = list(_content_columns(self.layout, self.config))
        if self.layout == "tokenized":
            content += [MASK] if MASK in shown else []
        else:
            content += [self.images_column] if self.images_column else []
            self.argument_columns = [name for name in ARGUMENT_COLUMNS if name in shown and name not in content]
            content += self.argument_columns
        self.content_columns = content
        self._content = without_decoding(self.dataset.select_columns(content), content)

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
            example.messages = [{"role": "system", "content": [text_part(system)]}, *example.messages]
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
                said += [example.arguments] if example.arguments else []
        except Exception:  # of this row alone, which keeps an id
            said = ["malformed", {name: str(value) for name, value in record.items()}]
        text = json.dumps(said, sort_keys=True, default=str, ensure_ascii=False)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()

    @property
    def folder(self) -> Path | None:
        """Where relative image paths start: beside the file they were read from; ``None`` without files."""
        path = Path(self.config.path).expanduser()
        return path.parent if path.is_file() else (path if path.is_dir() else None)

    def _parse(self, record: dict[str, Any], row: int, example_id: str) -> Example:
        try:
            return self._parse_cells(record, row, example_id)
        except RowError:
            raise
        except Exception as error:  # whatever a cell may hold, it is this row's own
            raise RowError.of(error, "the row cannot be read") from error

    def _parse_cells(self, record: dict[str, Any], row: int, example_id: str) -> Example:
        config = self.config
        if self.layout == "tokenized":
            return Example(example_id, row, tokens=tokens_of(record))

        templated = True
        if self.layout == "messages":
            messages = as_messages(record[config.messages_column], "user")
        else:
            first, second = (as_text(record[name]) for name in _content_columns(self.layout, config))
            templated = not (isinstance(first, str) and isinstance(second, str))
            messages = as_messages(first, "user") + as_messages(second, "assistant")
        images = as_list(record.get(self.images_column)) if self.images_column else []
        images = place_images(messages, images, has_column=self.images_column is not None)
        arguments = arguments_of({name: record[name] for name in self.argument_columns})
        return Example(example_id, row, messages, images, arguments, templated=templated)


def _shown_columns(dataset: datasets.Dataset) -> list[str]:
    """The columns that a dataset's format shows: ``set_format(columns=...)`` hides others.

    Raises:
        DataError: If its rows are made by a function when they are read; what is stored is not what they are.
    """
    if dataset.format["type"] == "custom":
        transform = dataset.format["format_kwargs"].get("transform")
        name = getattr(transform, "__name__", type(transform).__name__)
        raise DataError(
            f"the dataset makes its rows by {name} when they are read (with_transform or set_transform), and rows are "
            f"scored as they are stored: store what it makes with dataset.map({name}, batched=True), or give the "
            "dataset without it, dataset.with_format(None)"
        )
    if dataset.format["output_all_columns"]:
        return list(dataset.column_names)
    return [name for name in dataset.column_names if name in dataset.format["columns"]]


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
