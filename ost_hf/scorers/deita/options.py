"""How DEITA scores. Standard library only: ``--help`` reads this."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ost_hf.errors import ConfigError
from ost_hf.scorers.prompt_files import prompt_digests
from ost_hf.settings import Section, as_mapping, remembers_given


@remembers_given
@dataclass(frozen=True, kw_only=True)
class DeitaOptions:
    """Scorer `deita`: complexity of the question times quality of the answer, and an embedding of the row.

    The models have no defaults: the paper's scorers have 13 billion parameters and were trained on a prompt of their
    own, so nobody should get them by accident.
    """

    PROMPTS: ClassVar[dict[str, Path]] = {
        f"{name}_prompt_file": Path(__file__).with_name(f"{name}_prompt.jinja") for name in ("complexity", "quality")
    }

    complexity_model: str | None = field(
        default=None,
        metadata={
            "help": "causal language model that rates a question's complexity, on the Hub (name@revision pins "
            "it) or in a folder; required"
        },
    )
    quality_model: str | None = field(
        default=None, metadata={"help": "the same for an answer's quality; may be the same model; required"}
    )
    embedding_model: str | None = field(
        default=None,
        metadata={
            "help": "model whose mean last hidden state embeds a row (column sketch), for the diversity filter; "
            "it reads the row's beginning if the row is longer than the model allows; required"
        },
    )
    complexity_prompt_file: str | None = field(
        default=None,
        metadata={
            "help": "Jinja file that makes the prompt of `question`; a digit from 1 to 6 should follow it. By "
            "default words of our own: give a trained scorer the prompt it was trained on"
        },
    )
    quality_prompt_file: str | None = field(
        default=None, metadata={"help": "the same for the quality, of `question` and `answer`"}
    )

    def check(self, config: Any) -> None:
        """Raises ``ConfigError`` for missing models."""
        names = ("complexity_model", "quality_model", "embedding_model")
        missing = [f"scoring.deita.{name}" for name in names if not getattr(self, name)]
        if missing:
            raise ConfigError(
                f"scorer 'deita' needs {', '.join(missing)}: names on the Hub or local folders (the paper's scorers "
                "are hkust-nlp/deita-complexity-scorer and hkust-nlp/deita-quality-scorer)"
            )

    def identity(self) -> Section:
        """The fields, and hashes of the prompts' words."""
        return as_mapping(self) | prompt_digests("deita", self)
