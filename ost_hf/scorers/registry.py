"""The scorers by name. Ours stand in this package, each in a module or folder of its name.

A scorer of one's own::

    @dataclass(frozen=True)
    class Options:
        power: float = field(default=2.0, metadata={"help": "exponent of the length"})

    @register("long_answers", options=Options)
    class LongAnswers:
        batch_size = None

        def __init__(self, options, **unused):
            self.power = options.power

        def score(self, batch):
            return [row.tokens**self.power for row in batch]

``ost-hf score --import long_answers.py --scoring.scorer long_answers --scoring.long_answers.power 3`` uses it, and so
does ``OSTTrainer(..., scoring={"scorer": "long_answers", "long_answers": {"power": 3}})`` after an import.
Standard library only: ``--help`` reads this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ost_hf.registry import Registry

# What a scorer may ask for beside its configuration and the pool.
PROXY, ANCHORS = "proxy", "anchors"


@dataclass(frozen=True)
class NoOptions:
    """The options of a scorer or a stage that has none."""


@dataclass(frozen=True)
class Registered:
    """How to build a scorer, and what is known of it before.

    Attributes:
        build: Makes it.
        needs: A warm ``proxy``, the encoded ``anchors``.
        options: The dataclass of its own section ``scoring.NAME``.
        columns: The further columns that it gives: for each setting of ``scoring`` that it reads (``per_anchor``,
            ``group_by``, ``sketch_size``) the column that the setting adds, or several; under ``always`` those that are
            always there. ``None``: nothing is known.
    """

    build: Callable[..., Any]
    needs: frozenset[str]
    options: type = NoOptions
    columns: Mapping[str, str | tuple[str, ...]] | None = field(default=None)


SCORERS: Registry[Registered] = Registry("scorer", "ost_hf.scorers", entry_points="ost_hf.scorers")


def register(
    name: str,
    needs: Iterable[str] = (),
    options: type = NoOptions,
    columns: Mapping[str, str | tuple[str, ...]] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds a scorer under ``name``.

    The decorated callable builds it and is called with keywords: ``config`` (the ``scoring`` section), ``options`` (its
    own part of it), ``pool`` (the candidates, encoded), ``exclude`` (rows of the pool that must not be trained on),
    ``folder`` (the score table's, for what the scorer wants to find again), and what it ``needs``. It should take
    ``**unused`` for whatever else is there.

    Args:
        name: What ``scoring.scorer`` says.
        needs: ``proxy``, ``anchors``, both or none. What is not needed is not made.
        options: A dataclass whose fields have a ``help`` text in their metadata; its values are ``scoring.NAME``.
        columns: As :class:`Registered` has them.
    """

    def add(build: Callable[..., Any]) -> Callable[..., Any]:
        SCORERS.add(name, Registered(build, frozenset(needs), options, columns))
        return build

    return add
