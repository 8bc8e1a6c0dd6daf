"""How LESS is computed."""

from __future__ import annotations

from dataclasses import dataclass, field

from ost_hf.errors import require_integer


# Keywords only: a configuration that inherits these keeps its own fields in front.
@dataclass(frozen=True, kw_only=True)
class LessOptions:
    """Checkpoints and projection of the LESS scorer; rows, batch and learning rate are those of the proxy's warm-up."""

    less_checkpoints: int = field(
        default=4,
        metadata={
            "help": "less: warm-up epochs, each of which ends in a checkpoint (the paper's 4); cost grows with it"
        },
    )
    less_projection: int = field(
        default=8192,
        metadata={
            "help": "less: numbers that a gradient is projected to (the paper's 8192); 0: none, for small adapters "
            "(memory: rows of a batch x adapter)"
        },
    )

    def check_less(self) -> None:
        """Raises ``ConfigError`` for a value that is not allowed."""
        require_integer("scoring.less_checkpoints", self.less_checkpoints, at_least=1)
        require_integer("scoring.less_projection", self.less_projection, at_least=0)
