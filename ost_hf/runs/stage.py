"""What a stage of a run is: it can be asked whether it would work, and it says no before it begins."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol

from ost_hf.errors import require_choice
from ost_hf.runs.config import RunConfig

# In the order of the data's way. Each is a module of this room with the functions of `Stage`.
STAGES = ("score", "select", "train", "evaluate", "push")


class Stage(Protocol):
    """A module of this room."""

    def check(self, config: RunConfig) -> None:
        """Raises for what :meth:`prepare` would refuse, as far as that is known before any stage has run.

        Data sets and models' configurations are loaded, no weights. Called on every process of a run.
        """
        ...

    def prepare(self, config: RunConfig) -> Callable[[], None]:
        """Accepts a configuration, or raises: loads what the work needs, and writes none of the stage's tables.

        Returns:
            The work.
        """
        ...


def find_stage(name: str) -> Stage:
    """The stage of a name.

    Raises:
        ConfigError: If there is none.
    """
    require_choice("stage", name, STAGES)
    stage: Stage = importlib.import_module(f"ost_hf.runs.{name}")
    return stage


def run_stage(config: RunConfig, name: str) -> None:
    """Runs one stage in this process; ``config.yaml`` is written once the stage has accepted the configuration.

    Raises:
        OSTError: If the stage refuses, or fails. A configuration that was refused leaves the run directory as it was.
    """
    from ost_hf.parallel import free_memory, is_main

    work = find_stage(name).prepare(config)
    if is_main():
        config.write()
    work()
    del work
    # A trainer, its model and the optimizer's moments hold on to one another: the next stage may need their memory.
    free_memory()
