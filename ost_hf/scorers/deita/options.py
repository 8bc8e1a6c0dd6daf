"""How DEITA scores. Standard library only: ``--help`` reads this."""

from __future__ import annotations

from dataclasses import dataclass, field

from ost_hf.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DeitaOptions:
    """Scorer `deita`: complexity of the question times quality of the answer, and an embedding of the row.

    The models have no defaults: the paper's scorers have 13 billion parameters and were trained on a prompt of their
    own, so nobody should get them by accident.
    """

    deita_complexity_model: str | None = field(
        default=None,
        metadata={
            "help": "deita: causal language model that rates a question's complexity, on the Hub (name@revision pins "
            "it) or in a folder; required"
        },
    )
    deita_quality_model: str | None = field(
        default=None, metadata={"help": "deita: the same for an answer's quality; may be the same model; required"}
    )
    deita_embedding_model: str | None = field(
        default=None,
        metadata={
            "help": "deita: model whose mean last hidden state embeds a row (column sketch), for the diversity filter; "
            "it reads the row's beginning if the row is longer than the model allows; required"
        },
    )
    deita_complexity_prompt_file: str | None = field(
        default=None,
        metadata={
            "help": "deita: Jinja file that makes the prompt of `question`; a digit from 1 to 6 should follow it. By "
            "default words of our own: give a trained scorer the prompt it was trained on"
        },
    )
    deita_quality_prompt_file: str | None = field(
        default=None, metadata={"help": "deita: the same for the quality, of `question` and `answer`"}
    )

    def check_deita(self, chosen: bool) -> None:
        """Raises ``ConfigError`` for missing models if the scorer was ``chosen``."""
        names = ("deita_complexity_model", "deita_quality_model", "deita_embedding_model")
        missing = [f"scoring.{name}" for name in names if not getattr(self, name)]
        if chosen and missing:
            raise ConfigError(
                f"scorer 'deita' needs {', '.join(missing)}: names on the Hub or local folders (the paper's scorers "
                "are hkust-nlp/deita-complexity-scorer and hkust-nlp/deita-quality-scorer)"
            )
