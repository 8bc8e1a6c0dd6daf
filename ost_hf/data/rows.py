"""One shape for all rows: the accepted column layouts become ``Example``, and each gets a stable id.

Six layouts are accepted, told apart by their columns in this order, but that one whose columns the configuration
names comes first; all but the first with ``image`` or ``images``:

* ``input_ids`` and ``labels`` (already tokenised),
* ``messages`` with string or typed content,
* ``prompt`` and ``completion`` (strings or message lists),
* ``question`` and ``answer``,
* ``conversations`` (ShareGPT),
* ``instruction``, ``input`` and ``output`` (Alpaca).
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
import pyarrow as pa

from ost_hf.data.chat.arguments import COLUMNS as ARGUMENT_COLUMNS
from ost_hf.data.chat.arguments import arguments_of
from ost_hf.data.chat.canonical import canonical_messages, in_order
from ost_hf.data.config import DatasetConfig
from ost_hf.data.example import Example, RowError
from ost_hf.data.images import image_key
from ost_hf.data.layouts import TOKENIZED, content_columns, find_layout, messages_of, pictures_of, require_columns
from ost_hf.data.parsing import text_part, tokens_of
from ost_hf.data.pictures.files import Places, places_of
from ost_hf.data.placement import place_images
from ost_hf.data.reading.loading import file_columns, load_dataset, typed_cells, without_decoding
from ost_hf.data.reading.records import UNREADABLE, from_json_columns
from ost_hf.errors import DataError
from ost_hf.parallel import gather_objects, share, state
from ost_hf.tables.statuses import BAD_ROW


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
        self._source = dataset
        columns = [name for name in _shown_columns(dataset) if name != UNREADABLE]
        noted = [UNREADABLE] if UNREADABLE in dataset.column_names else []
        # Kept whole, with its own columns: strata, kinds and published rows are read from it.
        self.dataset = dataset.with_format(None).remove_columns(noted)
        self.argument_columns: list[str] = []
        self.layout = find_layout(columns, self.config)
        self.images_column = _find_images_column(columns, self.config)
        content = content_columns(self.layout, columns, self.config)
        if self.layout != TOKENIZED:
            content += [self.images_column] if self.images_column else []
            self.argument_columns = [name for name in ARGUMENT_COLUMNS if name in columns and name not in content]
            content += self.argument_columns
        self.content_columns = list(dict.fromkeys(content))
        read = [*self.content_columns, *noted]
        self._content = without_decoding(dataset.with_format(None).select_columns(read), read)

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
        example_id = self.example_ids[row]
        return self._parse(self._record(row), row, example_id)

    def select(self, indices: Iterable[int]) -> Rows:
        """The rows at ``indices``, in that order, keeping their ids."""
        indices = list(indices)
        chosen = Rows(self._source.select(indices), self.config)
        chosen.__dict__["content_hashes"] = [self.content_hashes[i] for i in indices]
        chosen.__dict__["example_ids"] = [self.example_ids[i] for i in indices]
        return chosen

    @cached_property
    def content_hashes(self) -> list[str]:
        """A hash of what each row says (messages and image bytes), equal for exact duplicates."""
        return [self._hash(row) for row in range(len(self))]

    def hash_together(self) -> None:
        """Computes ``content_hashes`` now, with every process hashing its share of the rows.

        Called on all processes of a run, or on none: images are read once, not once in each process.
        """
        if state().num_processes > 1 or "content_hashes" not in self.__dict__:
            mine = [(row, self._hash(row)) for row in share(list(range(len(self))))]
            self.__dict__["content_hashes"] = [content_hash for _, content_hash in sorted(gather_objects(mine))]

    @cached_property
    def example_ids(self) -> list[str]:
        """The user's column, or the content hash with an occurrence number: pools hold exact duplicates."""
        column = self.config.id_column
        if column is None:
            return self._named_by_content([None] * len(self))
        require_columns([column], self.dataset.column_names, "id_column")
        ids = self._named_by_content(self._id_cells(column))
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

    def _named_by_content(self, names: list[Any]) -> list[str]:
        """The names as text; a row without one is called by its content hash and an occurrence number."""
        seen: Counter[str] = Counter()
        ids = []
        for row, name in enumerate(names):
            if name is None:
                content_hash = self.content_hashes[row]
                name = f"{content_hash}-{seen[content_hash]}"
                seen[content_hash] += 1
            ids.append(str(name))
        return ids

    def _id_cells(self, column: str) -> list[Any]:
        cells = self.dataset.with_format(None).select_columns([column])
        try:
            return list(cells[column])
        except Exception:  # one cell that is no text: the others still name their rows
            return [_cell(cells, row, column) for row in range(len(self))]

    def _record(self, row: int) -> dict[str, Any]:
        """The cells that hold the row's content.

        Raises:
            RowError: If they cannot be read (``bad_row``).
        """
        try:
            features = self._content.features
            record = {name: from_json_columns(value, features[name]) for name, value in self._content[row].items()}
        except Exception as error:  # text that is no UTF-8, a date beyond Python's: Arrow files hold anything
            raise RowError.of(error, "the row cannot be read") from error
        if (problem := record.pop(UNREADABLE, None)) is not None:
            raise RowError(BAD_ROW, problem)
        return record

    def _hash(self, row: int) -> str:
        try:
            example = self._parse(self._record(row), row, "")
            if example.tokens is not None:
                said: Any = [example.tokens["input_ids"], example.tokens["labels"]]
            else:
                said = [
                    canonical_messages(example.messages),
                    [image_key(image, self.places) for image in example.images],
                ]
                said += [in_order(example.arguments)] if example.arguments else []
            return _digest(said)
        except Exception:  # what is wrong with the row is said when it is encoded; here it gets its name
            return self._hash_of_malformed(row)

    def _hash_of_malformed(self, row: int) -> str:
        """A name for a row that says nothing: of its cells, or of their bytes where they are no cells."""
        try:
            return _digest(["malformed", {name: str(value) for name, value in self._content[row].items()}])
        except Exception:
            sink = pa.BufferOutputStream()
            cells = self._content.with_format("arrow")[row : row + 1]
            with pa.ipc.new_stream(sink, cells.schema) as stream:
                stream.write_table(cells.combine_chunks())
            return _digest(["unreadable", hashlib.blake2b(sink.getvalue(), digest_size=16).hexdigest()])

    @property
    def folder(self) -> Path | None:
        """Where relative image paths start: beside the file they were read from; ``None`` without files."""
        path = Path(self.config.path).expanduser()
        return path.parent if path.is_file() else (path if path.is_dir() else None)

    @cached_property
    def places(self) -> Places:
        """Where the files of its images may lie."""
        return places_of(self.config, self.folder, self.dataset.info)

    @cached_property
    def _file_columns(self) -> dict[str, Any]:
        return file_columns(self.dataset.features)

    def _parse(self, record: dict[str, Any], row: int, example_id: str) -> Example:
        try:
            typed = {name: each for name, each in self._file_columns.items() if name in record}
            record = {**record, **{name: typed_cells(record[name], each) for name, each in typed.items()}}
            if self.layout == TOKENIZED:
                return Example(example_id, row, tokens=tokens_of(record))
            messages, templated = messages_of(self.layout, record, self._content.features, self.config)
            images = pictures_of(record.get(self.images_column)) if self.images_column else []
            images = place_images(messages, images, has_column=self.images_column is not None)
            arguments = arguments_of({name: record[name] for name in self.argument_columns})
        except RowError:
            raise
        except Exception as error:  # a shape that nobody thought of: this row's fault, and no other's
            raise RowError.of(error, "the row cannot be read") from error
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


def _digest(said: Any) -> str:
    text = json.dumps(said, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()


def _cell(cells: datasets.Dataset, row: int, column: str) -> Any:
    """A cell; ``None`` where its bytes are no value (text that is no UTF-8): the content names the row then."""
    try:
        return cells[row][column]
    except Exception:  # Arrow's errors, of any type
        return None


def _find_images_column(columns: list[str], config: DatasetConfig) -> str | None:
    if config.images_column is not None:
        require_columns([config.images_column], columns, "images_column")
        return config.images_column
    return next((name for name in ("images", "image") if name in columns), None)
