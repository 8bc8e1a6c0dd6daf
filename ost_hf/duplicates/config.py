"""What is done about copies."""

from __future__ import annotations

from dataclasses import dataclass, field

from ost_hf.errors import require_choice, require_integer, require_range
from ost_hf.settings import remembers_given


@remembers_given
@dataclass(frozen=True)
class DuplicatesConfig:
    """What is done about rows of the pool that stand there twice, or in the anchors or the evaluation set too."""

    within_pool: str = field(
        default="report",
        metadata={
            "help": "rows that repeat another row of the pool: `report` counts and lists them in duplicates.json; "
            "`drop` keeps one row of each group, the first by example_id that can be scored, and is what strategies "
            "auto and thorough do with the one-step scorer unless told otherwise; `error`; `off`"
        },
    )
    anchors: str | None = field(
        default=None,
        metadata={
            "help": "rows that nearly repeat an anchor: `error`, `drop`, `report` or `off`; by default as "
            "anchors.overlap says, which decides about exact copies"
        },
    )
    evaluation: str = field(
        default="error",
        metadata={
            "help": "rows that repeat a row of the evaluation section's set: `error` by default, since a score on rows "
            "that were trained on says nothing; `drop`, `report` or `off`"
        },
    )
    near: bool = field(
        default=False,
        metadata={
            "common": True,
            "short": "look for near copies too (strategy auto does)",
            "help": "look for near duplicates too, for which every row's text and pictures are read once more; "
            "strategies auto and thorough do so with the one-step scorer unless told otherwise",
        },
    )
    text_similarity: float = field(
        default=0.8,
        metadata={
            "help": "least Jaccard similarity of the runs of three words in each turn, 0.5 to 0.95 (0.8: about one "
            "word in 25 may differ); turns of fewer than 20 words must be equal but for case, spacing and punctuation"
        },
    )
    same_numbers: bool = field(
        default=True,
        metadata={
            "help": "near texts must hold the same numbers in the same order: a sum with another figure is another "
            "sum; false also finds problems whose figures were changed"
        },
    )
    image_similarity: float = field(
        default=0.9,
        metadata={
            "help": "least similarity of each pair of pictures, 0.5 to 0.99: 1 minus their root mean square difference "
            "in units of their contrast, both shrunk to 32 x 32 pixels or fewer (0.9: noise, JPEG and resizing pass)"
        },
    )
    seed: int = field(default=0, metadata={"help": "seed of the MinHash permutations that find candidates"})

    def __post_init__(self) -> None:
        actions = ["report", "drop", "error", "off"]
        require_choice("duplicates.within_pool", self.within_pool, actions)
        require_choice("duplicates.evaluation", self.evaluation, actions)
        if self.anchors is not None:
            require_choice("duplicates.anchors", self.anchors, actions)
        require_range("duplicates.text_similarity", self.text_similarity, at_least=0.5, at_most=0.95)
        require_range("duplicates.image_similarity", self.image_similarity, at_least=0.5, at_most=0.99)
        require_integer("duplicates.seed", self.seed, at_least=0)
