"""How LESS is computed."""

from __future__ import annotations

from dataclasses import dataclass, field

from ost_hf.errors import require_integer
from ost_hf.settings import remembers_given


@remembers_given
@dataclass(frozen=True)
class LessOptions:
    """Checkpoints and projection of the LESS scorer; rows, batch and learning rate are those of the proxy's warm-up."""

    checkpoints: int = field(
        default=4,
        metadata={"help": "warm-up epochs, each of which ends in a checkpoint (the paper's 4); cost grows with it"},
    )
    projection: int = field(
        default=8192,
        metadata={
            "help": "numbers that a gradient is projected to (the paper's 8192); 0: none, for small adapters "
            "(memory: rows of a batch x adapter)"
        },
    )

    def __post_init__(self) -> None:
        require_integer("scoring.less.checkpoints", self.checkpoints, at_least=1)
        require_integer("scoring.less.projection", self.projection, at_least=0)
