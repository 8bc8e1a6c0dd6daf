"""What is generated and how answers are compared."""

from __future__ import annotations

from dataclasses import dataclass, field

from ost_hf.data.config import DatasetConfig
from ost_hf.errors import require_choice, require_integer


@dataclass(frozen=True)
class EvaluationConfig(DatasetConfig):
    """Test rows in any accepted layout; their last assistant turn is the reference."""

    model: str | None = field(
        default=None,
        metadata={
            "common": True,
            "short": "another model than the fine-tuned target",
            "help": "model to evaluate, such as the target before fine-tuning; by default after it",
        },
    )
    reference_column: str | None = field(
        default=None,
        metadata={
            "common": True,
            "short": "column of right answers; by default read off the last turn",
            "help": "column with the bare right answer; by default extracted from the last turn",
        },
    )
    group_by: str | None = field(default=None, metadata={"help": "also report exact match for each value of a column"})
    match: str = field(
        default="math",
        metadata={
            "help": "`math`: equal as text, as a number with its unit, as a choice, or as mathematics (math-verify); "
            "`text`: equal as text, but for case, space and formatting"
        },
    )
    batch_size: int = field(default=16, metadata={"help": "rows generated at a time in each process"})
    max_new_tokens: int = field(default=512, metadata={"common": True, "help": "longest generated answer"})

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("evaluation.match", self.match, ["math", "text"])
        require_integer("evaluation.batch_size", self.batch_size, at_least=1)
        require_integer("evaluation.max_new_tokens", self.max_new_tokens, at_least=1)
