"""Processes that are forked from one which has imported what they need: each is its own, and none imports anew.

As a script it is that one: it reads commands as JSON, a line each, and answers with what came of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


class Forks:
    """Runs Python with an environment, in processes of their own.

    Args:
        environment: What is read when libraries are imported, such as the Hub's address.
        folder: The working directory.
    """

    def __init__(self, environment: dict[str, str], folder: Path):
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        """What ``python WORDS`` comes to; the words begin with ``-m MODULE`` or with a file."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return subprocess.CompletedProcess(words, **json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def serve() -> None:
    """Imports, and forks for every command."""
    import ost_hf.hub.load
    import ost_hf.hub.push
    import ost_hf.runs.push
    import ost_hf.scoring.runner  # noqa: F401

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever is printed here is no answer
    for line in sys.stdin:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            child = os.fork()
            if child == 0:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                _run(json.loads(line))
            _, status = os.waitpid(child, 0)
            texts = {}
            for name, file in (("stdout", out), ("stderr", err)):
                file.seek(0)
                texts[name] = file.read().decode()
        answers.write(json.dumps({"returncode": os.waitstatus_to_exitcode(status), **texts}) + "\n")


def _run(words: list[str]) -> None:
    """Runs a module or a file as Python would, and ends the process."""
    import runpy
    import traceback

    status = 1
    try:
        if words[0] == "-m":
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve()
