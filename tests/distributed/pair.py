"""Two processes of one ``accelerate launch`` that import once and do one job after another.

A job is what a user types after ``accelerate launch --config_file FILE``. Each of the two does it in a fork of its own:
a new process with the launcher's environment, its own process group and its own exit status, that differs from
a launched one only in that torch, transformers and the like are imported already. Importing them takes ten times as
long as most jobs.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import socket
import subprocess
import sys
from pathlib import Path

# Seconds for a job or for the imports, on a busy machine.
PATIENCE = 400


class Pair:
    """The side of the tests."""

    def __init__(self, command: list[str], folder: Path):
        """Starts ``command`` (an ``accelerate launch`` up to its own flags) on this file, with an empty folder."""
        self.folder = folder
        self.jobs = 0
        address = str(folder / "socket")
        with socket.socket(socket.AF_UNIX) as listener, (folder / "launcher.log").open("w") as log:
            listener.bind(address)
            listener.listen(2)
            self.launcher = subprocess.Popen([*command, __file__, address], stdout=log, stderr=subprocess.STDOUT)
            self.processes = [self._accept(listener) for _ in range(2)]

    def _accept(self, listener: socket.socket) -> socket.socket:
        for _ in range(PATIENCE):
            if select.select([listener], [], [], 1)[0]:
                return listener.accept()[0]
            if self.launcher.poll() is not None:
                break
        self.launcher.terminate()
        self.launcher.wait()
        raise AssertionError((self.folder / "launcher.log").read_text())

    def run(self, words: list[str]) -> str:
        """Has both do a job; returns what they printed, and raises where one failed."""
        self.jobs += 1
        output = self.folder / f"job-{self.jobs}.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for process in self.processes:
            process.sendall(json.dumps([words, str(output), port]).encode() + b"\n")
        doing = list(self.processes)
        while doing:
            # Whichever ends first: one that fails leaves the other waiting for it.
            ended = select.select(doing, [], [], PATIENCE)[0]
            statuses = [process.recv(64).decode() for process in ended]
            if not ended or set(statuses) != {"0"}:
                printed = output.read_text() if output.exists() else ""
                raise AssertionError(f"exit status {statuses or 'none yet'}\n{printed[-6000:]}")
            doing = [process for process in doing if process not in ended]
        return output.read_text()

    def close(self) -> int:
        """Ends both, with a job that they may still do; returns the launcher's exit status."""
        for process in self.processes:
            process.close()
        try:
            return self.launcher.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.launcher.terminate()  # upon which it ends those that it started, and their forks
            return self.launcher.wait()


def _import_what_jobs_use() -> None:
    import datasets  # noqa: F401
    import deepspeed  # noqa: F401
    import transformers.models.qwen3.modeling_qwen3
    import transformers.models.qwen3_vl.modeling_qwen3_vl
    import transformers.models.qwen3_vl.processing_qwen3_vl  # noqa: F401
    import trl  # noqa: F401

    import ost_hf.runs.score
    import ost_hf.runs.train
    import ost_hf.training.trainer
    import ost_hf.training.trl  # noqa: F401

    # Jobs collect garbage of their own only, not among all that was imported.
    gc.collect()
    gc.freeze()


def _serve(address: str) -> None:
    _import_what_jobs_use()
    job = None
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        for line in connection.makefile():
            child = os.fork()
            if child == 0:
                job = json.loads(line)
                break
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            connection.sendall(str(status).encode())
    if job is None:
        os._exit(0)  # at once: this process did nothing that is to be finished
    _become(*job)


def _become(words: list[str], output: str, port: int) -> None:
    """Does in this process what ``python WORDS`` does in one that a launcher starts."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    # A store of its own: what an earlier job wrote into the launcher's would still stand there.
    os.environ.update(TORCHELASTIC_USE_AGENT_STORE="False", MASTER_PORT=str(port))
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    _serve(sys.argv[1])
