"""Scripts and studies in the process of the tests; one of their own would import torch and the rest, for seconds."""

from __future__ import annotations

import io
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from ost_hf.study.worker import run_group


def run_script(script: Path, *words: object) -> str:
    """Runs a script as ``python SCRIPT WORDS`` would, and gives what it printed."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(sys, "argv", [str(script), *map(str, words)])
        patch.setattr(sys, "path", [str(script.parent), *sys.path])
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise
    return printed.getvalue()


def run_groups_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a study's groups run in this process, one after another where there is one worker."""

    def in_this_process(study: Any, group: Any, methods: list[str], free: object) -> list[str]:
        return run_group(study, group, methods)

    monkeypatch.setattr("ost_hf.study.run._in_a_process", in_this_process)
