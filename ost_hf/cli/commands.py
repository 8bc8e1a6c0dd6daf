"""The commands: what each is for, and the sections whose flags it takes."""

from __future__ import annotations

from dataclasses import dataclass

_SCORED = ("pool", "anchors", "duplicates", "encoding", "proxy", "scoring")


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        summary: What it does, in a line.
        sections: The sections that it reads; flags of others would do nothing there.
        strategy: Whether ``--strategy`` means something to it.
        training: Whether it takes ``--training.FIELD`` for every field of ``OSTConfig``.
        reuse: Whether ``--reuse`` means something to it.
    """

    summary: str
    sections: tuple[str, ...]
    strategy: bool = False
    training: bool = False
    reuse: bool = False


COMMANDS: dict[str, Command] = {
    "score": Command("score every row of a pool", (*_SCORED, "accelerate"), strategy=True, reuse=True),
    "doctor": Command(
        "measure how far this proxy's utilities can be trusted, and what they cost", _SCORED, strategy=True
    ),
    "select": Command("choose the rows to keep", ("pool", "selection"), strategy=True),
    "train": Command(
        "fine-tune the target on the kept rows", ("pool", "encoding", "target", "accelerate"), training=True
    ),
    "evaluate": Command("measure exact match of the fine-tuned target", ("evaluation", "encoding", "accelerate")),
    "run": Command(
        "score, select, train and evaluate",
        (*_SCORED, "selection", "target", "evaluation", "accelerate"),
        strategy=True,
        training=True,
        reuse=True,
    ),
    "push": Command("push kept rows, scores and a dataset card to the Hub", ("pool", "hub")),
}
