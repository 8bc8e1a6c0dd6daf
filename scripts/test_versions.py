"""Runs the tests with the oldest and with the newest versions that pyproject.toml claims, and prints a table.

    python scripts/test_versions.py                                          # the fast tests with both
    python scripts/test_versions.py --all --only oldest                      # every test, with the oldest
    python scripts/test_versions.py --only newest --python 3.12 --torch 2.13.0

``oldest`` is the floor of every dependency on the oldest Python of the classifiers. ``newest`` is the newest release of
everything on the newest of these Pythons. Tools of the ``dev`` extra have no floor here: pip takes what fits.

Each combination gets a virtual environment in a temporary folder, which is removed afterwards; with ``--keep FOLDER``
it stays and is used again. An environment takes up to 8 GB: on Linux pip serves torch with CUDA, unless ``--torch``
names a version that it has for the CPU alone. Python is looked for on PATH, in pyenv's folder and by uv.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
FAST = "not slow and not distributed and not trainer"
SHOWN = ("torch", "transformers", "accelerate", "peft", "datasets", "huggingface_hub", "trl", "deepspeed", "numpy")


@dataclass
class Trial:
    """One combination, and what came of it."""

    name: str
    python: str
    requirements: list[str]
    versions: dict[str, str] = field(default_factory=dict)
    outcome: str = "not run"
    failed: list[str] = field(default_factory=list)


def main() -> int:
    """Returns 1 if a combination could not be installed or a test failed."""
    given = parse_arguments()
    folder = given.keep or Path(tempfile.mkdtemp(prefix="ost-hf-versions-"))
    trials = plan(given)
    try:
        copy = copy_of_the_repository(folder)
        for trial in trials:
            print(f"== {trial.name}: Python {trial.python}", flush=True)
            trial.outcome = run_trial(trial, folder, copy, given)
    finally:
        if not given.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print_table(trials)
    return int(any(trial.failed or "passed" not in trial.outcome for trial in trials))


def parse_arguments() -> argparse.Namespace:
    """What was asked on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["oldest", "newest"], help="one combination instead of both")
    parser.add_argument("--python", help="this Python instead of the one that the classifiers name, such as 3.12")
    parser.add_argument("--torch", help="this torch in every combination, such as 2.13.0")
    parser.add_argument("--all", action="store_true", help="every test instead of the fast ones")
    parser.add_argument("--workers", default="2", help="processes that run tests")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where environments are kept and found again")
    parser.add_argument("words", nargs="*", help="words for pytest, after --")
    return parser.parse_args()


def plan(given: argparse.Namespace) -> list[Trial]:
    """The combinations that pyproject.toml and the arguments ask for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pythons = sorted({words[-1] for words in map(str.split, project["classifiers"]) if "3." in words[-1]}, key=Version)
    trials = []
    for name, python in (("oldest", pythons[0]), ("newest", pythons[-1])):
        if given.only in (None, name):
            asked = sorted({pin(one, name == "oldest", given.torch) for one in requirements(project)})
            trials.append(Trial(name, given.python or python, asked))
    return trials


def requirements(project: dict) -> Iterator[Requirement]:
    """What the package and its extras need; that of ``dev`` without limits."""
    extras = project["optional-dependencies"]
    for extra, texts in [("", project["dependencies"]), *extras.items()]:
        for one in map(Requirement, texts):
            if one.name != project["name"]:
                yield Requirement(one.name) if extra == "dev" else one


def pin(one: Requirement, oldest: bool, torch: str | None) -> str:
    """A requirement as pip is to read it: at its floor, or as it is."""
    if torch and one.name in ("torch", "torchvision"):
        return f"torch=={torch}" if one.name == "torch" else "torchvision"  # which goes by torch
    floors = [limit.version for limit in one.specifier if limit.operator == ">="]
    return f"{one.name}=={floors[0]}" if oldest and floors else str(one)


def copy_of_the_repository(folder: Path) -> Path:
    """The files that git knows or would take, so that a long run does not see later changes."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    copy = folder / "repository"
    shutil.rmtree(copy, ignore_errors=True)
    for name in filter(None, names):
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    return copy


def run_trial(trial: Trial, folder: Path, copy: Path, given: argparse.Namespace) -> str:
    """Installs and tests; the outcome in words."""
    interpreter = find_python(trial.python)
    if interpreter is None:
        return f"no Python {trial.python} found"
    environment = folder / f"{trial.name}-{trial.python}"
    python = str(environment / "bin" / "python")
    if not install(trial, interpreter, environment, copy):
        return "not installable"
    shown = f"from importlib.metadata import version; print(*map(version, {SHOWN}))"
    trial.versions = dict(zip(SHOWN, output(python, "-c", shown).split(), strict=True))
    variables = {"OMP_NUM_THREADS": "1", "TORCH_EXTENSIONS_DIR": str(environment / "torch_extensions"), **os.environ}
    variables |= {"PATH": f"{environment / 'bin'}{os.pathsep}{variables['PATH']}"}
    if given.all:
        build = "from deepspeed.comm.torch import build_shm_op; build_shm_op()"
        subprocess.run([python, "-c", build], env={**variables, "DS_ACCELERATOR": "cpu"}, check=False)
    report = folder / f"{trial.name}.xml"
    report.unlink(missing_ok=True)
    # Other versions warn of other things; that is no error here.
    words = [python, "-m", "pytest", "-W", "default", "-n", given.workers, "--dist", "loadgroup"]
    words += ["--no-loadscope-reorder", f"--junitxml={report}", *([] if given.all else ["-m", FAST]), *given.words]
    status = subprocess.run(words, cwd=copy, env=variables, check=False).returncode
    return read_report(report, trial) if report.exists() else f"pytest ended with status {status}"


def find_python(version: str) -> str | None:
    """An interpreter that says it is of this version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python{version}"), sys.executable]
    if shutil.which("uv"):
        candidates.append(output("uv", "python", "find", version).strip())
    # A shim of pyenv is on PATH whether or not it would start.
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    return next((str(one) for one in candidates if one and output(str(one), "-c", ask).strip() == version), None)


def install(trial: Trial, interpreter: str, environment: Path, copy: Path) -> bool:
    """Makes the environment, unless the same stands there already, and installs the package into it."""
    complete = environment / "complete.txt"
    python = str(environment / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = "\n".join(trial.requirements)
    if not complete.exists() or complete.read_text() != wanted:
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([interpreter, "-m", "venv", str(environment)], check=True)
        if subprocess.run([*pip, "--upgrade", "pip"], check=False).returncode:
            return False
        if subprocess.run([*pip, *trial.requirements], check=False).returncode:
            return False
        if output(python, "-c", "import torch; print(torch.version.cuda)").strip() == "None":
            site = Path(output(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
            shutil.copy(copy / "scripts" / "torchvision_cpu.py", site / "_ost_dev_torchvision_cpu.py")
            (site / "_ost_dev_torchvision_cpu.pth").write_text("import _ost_dev_torchvision_cpu\n")
        complete.write_text(wanted)
    return not subprocess.run([*pip, "--no-deps", "--force-reinstall", str(copy)], check=False).returncode


def output(*words: str) -> str:
    """What a command prints; nothing if it fails."""
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def read_report(report: Path, trial: Trial) -> str:
    """Counts of a JUnit report; the failed tests go into the trial."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    skipped = sum(case.find("skipped") is not None for case in cases)
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    trial.failed = [f"{case.get('classname')}::{case.get('name')}" for case in failed]
    return f"{len(cases) - skipped - len(failed)} passed, {skipped} skipped, {len(failed)} failed"


def print_table(trials: list[Trial]) -> None:
    """The table, and the names of tests that failed."""
    print("\n| | Python | " + " | ".join(SHOWN) + " | tests |")
    print("|---" * (len(SHOWN) + 3) + "|")
    for trial in trials:
        versions = (trial.versions.get(name, "") for name in SHOWN)
        print(f"| {trial.name} | {trial.python} | {' | '.join(versions)} | {trial.outcome} |")
    for trial in trials:
        for name in trial.failed:
            print(f"{trial.name}: {name}")


if __name__ == "__main__":
    sys.exit(main())
