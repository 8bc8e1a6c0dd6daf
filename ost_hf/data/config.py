"""Where rows come from, and how they become model inputs. Standard library only: ``--help`` reads these."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ost_hf.errors import ConfigError, require_choice, require_integer


@dataclass(frozen=True)
class DatasetConfig:
    """A set of rows: on the Hub, in local files, or in a folder."""

    path: str = field(
        metadata={
            "common": True,
            "short": "name on the Hub, a file (.parquet, .jsonl, .csv) or a folder",
            "help": "dataset name on the Hub, a local .parquet/.jsonl/.json/.csv file, a folder of such files or of "
            "images (imagefolder), or a folder written by Dataset.save_to_disk",
        }
    )
    name: str | None = field(default=None, metadata={"help": "configuration name of a Hub dataset"})
    split: str = field(default="train", metadata={"common": True, "help": "split, slices such as train[:1%%] included"})
    revision: str | None = field(default=None, metadata={"help": "branch, tag or commit of a Hub dataset"})
    limit: int | None = field(default=None, metadata={"help": "use the first so many rows only"})
    id_column: str | None = field(
        default=None,
        metadata={"help": "column holding a unique id; without it a hash of the content names each row"},
    )
    messages_column: str = field(default="messages", metadata={"help": "column of chat messages"})
    images_column: str | None = field(
        default=None, metadata={"help": "column of one image or a list of images; by default `images` or `image`"}
    )
    allow_paths: list[str] = field(
        default_factory=list,
        metadata={
            "help": "folders beside the rows' own whose pictures the rows may name, such as [/data/images]; by default "
            "a path that leaves the rows' folder is a bad image"
        },
    )
    prompt_column: str = field(default="prompt", metadata={"help": "prompt of the prompt/completion shape"})
    completion_column: str = field(default="completion", metadata={"help": "completion of the same"})
    question_column: str = field(default="question", metadata={"help": "question of the question/answer shape"})
    answer_column: str = field(default="answer", metadata={"help": "answer of the same"})
    tokenizer: str | None = field(
        default=None,
        metadata={
            "help": "for rows of input_ids/labels: the tokenizer they were made with, so that another is refused"
        },
    )
    system_prompt: str | None = field(
        default=None, metadata={"help": "system message put before rows that bring none (not for tokenised rows)"}
    )

    def __post_init__(self) -> None:
        if not self.path:
            raise ConfigError("a dataset needs a path: a Hub name, a file or a folder")
        require_integer("limit", self.limit, at_least=1, optional=True)
        if isinstance(self.allow_paths, str) or not all(isinstance(each, (str, Path)) for each in self.allow_paths):
            raise ConfigError(f"allow_paths must be a list of folders, got {self.allow_paths!r}")


@dataclass(frozen=True)
class AnchorConfig(DatasetConfig):
    """The anchor set: a dataset as it is, or a stratified sample of a held-out split."""

    size: int | None = field(
        default=None,
        metadata={
            "common": True,
            "short": "draw so many rows; by default all",
            "help": "draw so many rows (paper: 100 of a held-out 500); by default all rows",
        },
    )
    stratify_by: str | None = field(
        default=None, metadata={"help": "column whose values are represented in the sample in their proportions"}
    )
    seed: int = field(default=0, metadata={"help": "seed of the draw"})
    overlap: str = field(
        default="error",
        metadata={"help": "pool rows with the content of an anchor: `error`, or `drop` them from the selection"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("anchors.size", self.size, at_least=1, optional=True)
        require_choice("anchors.overlap", self.overlap, ["error", "drop"])
        if self.stratify_by and not self.size:
            raise ConfigError("anchors.stratify_by needs anchors.size: how many rows to draw")


@dataclass(frozen=True)
class EncodingConfig:
    """How rows become token sequences; the same for proxy and target."""

    max_length: int | None = field(
        default=2048,
        metadata={
            "common": True,
            "short": "longest row in tokens, with those of its images",
            "help": "longest sequence in tokens, image tokens included; `null` for no limit",
        },
    )
    overflow: str = field(
        default="skip",
        metadata={
            "help": "rows over max_length: `skip` gives them the status too_long; `truncate` cuts the end of the "
            "last answer (status truncated), never an image token"
        },
    )
    chat_template: str | None = field(
        default=None, metadata={"help": "file with a Jinja chat template to use in place of the model's own"}
    )
    cache_mib: int = field(
        default=512,
        metadata={
            "help": "MiB of encoded rows kept in memory in each process (its loader workers keep none), for each of "
            "the last three of pool, anchors and the like; 0: encode at every reading"
        },
    )

    def __post_init__(self) -> None:
        require_integer("max_length", self.max_length, at_least=2, optional=True)
        require_integer("encoding.cache_mib", self.cache_mib, at_least=0)
        require_choice("overflow", self.overflow, ["skip", "truncate"])

    def read_chat_template(self) -> str | None:
        """The text of the file that ``chat_template`` names.

        Raises:
            ConfigError: If there is no such file.
        """
        if self.chat_template is None:
            return None
        path = Path(self.chat_template).expanduser()
        if not path.is_file():
            raise ConfigError(f"encoding.chat_template: there is no file {self.chat_template}")
        return path.read_text()

    def identity(self) -> dict[str, Any]:
        """What decides what a row becomes: the fields but for memory's, and the template's text."""
        fields = {key: value for key, value in asdict(self).items() if key != "cache_mib"}
        text = self.read_chat_template()
        if text is not None:
            fields["chat_template_digest"] = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        return fields
