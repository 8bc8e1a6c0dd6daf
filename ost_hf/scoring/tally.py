"""Counts what a scoring run does while it does it: passes of rows, trainings, steps, seconds.

Each process counts for itself, in a file ``cost/process-N.json`` beside the table's parts. A run that goes on adds to
what the files hold, with any number of processes. The files are written where a part of the table is, so what a killed
run had done since then is not counted. The cost of a run is the sum of its files; seconds are the main process's.

:func:`counting` opens the count, :func:`apart` says what the work in its block belongs to, :func:`count` adds to it.
Outside a count the last two do nothing: the doctor scores with the same functions, and what it does is not the run's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ost_hf.files import write_json
from ost_hf.parallel import state
from ost_hf.scoring.clock import now
from ost_hf.scoring.passes import Part, cost_of_parts


class _Tally:
    """This process's count, and the parts whose blocks are open: time is that of the innermost one."""

    def __init__(self, path: Path):
        self.path = path
        self.parts = _read(path) if path.exists() else {}
        self.open: list[str] = []
        self.since = 0.0

    def mark(self) -> None:
        """Gives the time since the last mark to the innermost part."""
        moment = now()
        if self.open:
            self.innermost.seconds += moment - self.since
        self.since = moment

    @property
    def innermost(self) -> Part:
        return self.parts.setdefault(self.open[-1], Part())


_current: _Tally | None = None


@contextmanager
def counting(folder: Path) -> Iterator[None]:
    """Counts what is done in the block, into this process's file in a folder."""
    global _current
    before, _current = _current, _Tally(folder / f"process-{state().process_index}.json")
    try:
        with apart("other"):
            yield
    finally:
        _current = before


@contextmanager
def apart(name: str) -> Iterator[None]:
    """What is done in the block belongs to this part, one of :data:`ost_hf.scoring.passes.PARTS`."""
    tally = _current
    if tally is None:
        yield
        return
    tally.mark()
    tally.open.append(name)
    try:
        yield
    finally:
        tally.mark()
        tally.open.pop()
        if len(tally.open) < 2:
            save()


def count(row_passes: float | None, trainings: int = 0, steps: int = 0) -> None:
    """Adds work to the innermost part; ``None`` for passes whose number is not known."""
    if _current is not None:
        _current.innermost.add(Part(row_passes, 0.0, trainings, steps))


def count_rows(scorer: Any, rows: int) -> None:
    """Adds rows that a scorer has scored."""
    passes = getattr(scorer, "passes", None)
    count(None if passes is None else passes * rows)


def counted(name: str) -> bool:
    """Whether a count is open that has this part, perhaps from the run before."""
    return _current is not None and name in _current.parts


def save() -> None:
    """Writes this process's file."""
    if _current is not None:
        write_json(_current.path, {name: asdict(part) for name, part in _current.parts.items()})


def cost_so_far(folder: Path, rows: int) -> dict[str, Any]:
    """The cost of a run: the sum of its processes' files.

    Args:
        folder: Theirs.
        rows: Rows of the pool that got a score.

    Returns:
        As :func:`ost_hf.scoring.passes.cost_of_parts` gives it.
    """
    total: dict[str, Part] = {}
    for path in sorted(folder.glob("process-*.json")):
        for name, part in _read(path).items():
            # Processes work at the same time: their seconds do not add up.
            part.seconds = part.seconds if path.stem == "process-0" else 0.0
            total.setdefault(name, Part()).add(part)
    return cost_of_parts(total, rows)


def _read(path: Path) -> dict[str, Part]:
    return {name: Part(**kept) for name, kept in json.loads(path.read_text()).items()}
