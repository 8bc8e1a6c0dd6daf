"""Runs a study in workers, and writes what came of it: ``results.json``, ``results.md``, ``results.png``."""

from __future__ import annotations

import importlib.util
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ost_hf.errors import ConfigError, RunDirectoryError
from ost_hf.files import write_json, write_text
from ost_hf.runs.launcher import LAUNCHED_STAGES, wants_launch
from ost_hf.study.config import StudyConfig, load_study
from ost_hf.study.devices import device_of_worker, see_only, visible_devices
from ost_hf.study.merge import machines_of, merged, part_of, read_results
from ost_hf.study.plan import (
    Group,
    arms,
    configuration,
    groups,
    repetition,
    require_evaluation,
    require_steps,
    seeds_there,
)
from ost_hf.study.source import commits_of

# What of a study's YAML its results depend on.
_DEFINING = ("common", "settings", "methods", "keep_ratios", "protocols", "count_by", "copies", "datamodelling")


def report_again(paths: list[Path], output: str | None, part: dict[str, list[Any] | None]) -> None:
    """Tables and plot of what is in files; of several, and of a part of them, also a ``results.json``.

    Raises:
        ConfigError: For files that are not there or do not belong together.
    """
    parts = {str(path): read_results(path) for path in paths}
    if any(names is not None for names in part.values()):
        parts = {path: part_of(results, part) for path, results in parts.items()}
    elif len(paths) == 1:
        report(parts[str(paths[0])], Path(output) if output else paths[0].parent, paths[0].stem)
        return
    if output is None:
        raise ConfigError("several results, and a part of them, need --output: the folder for their results.json")
    if (Path(output) / "results.json").resolve() in {path.resolve() for path in paths}:
        raise ConfigError(f"{output}/results.json is one of the parts: choose another folder for the whole")
    write_results(merged(parts), Path(output))


def write_results(results: dict[str, Any], folder: Path) -> None:
    """``results.json``, table and plot."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "results.json", results, indent=1)
    report(results, folder, "results")


def check_libraries() -> None:
    """Raises ``ConfigError`` now if the report could not be written after hours of work."""
    missing = [name for name in ("scipy", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"a study's report needs {' and '.join(missing)}: pip install 'ost-hf[report]'")


def run_study(study: StudyConfig, wanted: list[Group], methods: list[str]) -> list[str]:
    """Runs what is missing, groups side by side in processes of their own, each with one of the devices there are.

    Args:
        study: The whole study.
        wanted: The groups to run.
        methods: The methods to run.

    Returns:
        One message for each method that failed.

    Raises:
        ConfigError: Before anything runs, if an arm's configuration is not right.
    """
    launched = False
    for group in wanted:
        for method in methods:
            for arm in arms(study, method):
                config = configuration(study, group, method, arm)
                require_evaluation(config, method)
                if arm.protocol is not None:
                    require_steps(config, method)
                launched = launched or any(wants_launch(config, stage) for stage in LAUNCHED_STAGES)
    failures: list[str] = []
    workers = min(study.workers, len(wanted))
    # A stage that is launched in processes of its own shares out devices itself.
    devices = [] if launched else visible_devices()
    free: SimpleQueue[str | None] = SimpleQueue()
    for slot in range(workers):
        free.put(device_of_worker(slot, devices))
    # A process for each group: one that is killed takes no other with it.
    with ThreadPoolExecutor(workers) as threads:
        futures = [threads.submit(_in_a_process, study, group, methods, free) for group in wanted]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                failures += future.result()
                print(f"{done} of {len(wanted)} settings and seeds done", file=sys.stderr)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)  # interrupted: what has not begun does not
            raise
    return failures


def _in_a_process(study: StudyConfig, group: Group, methods: list[str], free: SimpleQueue[str | None]) -> list[str]:
    from ost_hf.study.worker import run_group

    device = free.get()
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context, initializer=see_only, initargs=(device,)) as pool:
            return pool.submit(run_group, study, group, methods).result()
    except BrokenProcessPool:
        return [f"{group.setting}, seed {group.seed}: its process was killed, or ran out of memory"]
    finally:
        free.put(device)


def collect(study: StudyConfig, config_path: str) -> dict[str, Any]:
    """All results that are there, of whichever seeds, and where they come from."""
    from ost_hf.study.datamodelling import read_datamodelling
    from ost_hf.study.markers import data_digests, read_done
    from ost_hf.study.provenance import configuration_hash, weights

    found: list[dict[str, Any]] = []
    datamodelling: list[dict[str, Any]] = []
    others: list[str] = []
    study = replace(study, seeds=sorted({*study.seeds, *seeds_there(study)}))
    for group in groups(study):
        try:
            datamodelling += read_datamodelling(study, group)
        except RunDirectoryError as error:
            others.append(str(error))
        for method in study.methods:
            for arm in arms(study, method):
                config = configuration(study, group, method, arm)
                try:
                    result = read_done(config.folder / "result.json", config)
                except RunDirectoryError as error:
                    others.append(str(error))
                    continue
                if result is not None:
                    alike = configuration(study, repetition(group), method, arm)
                    made_with = {"weights": weights(config), "data": data_digests(config)}
                    found.append(result | {"configuration": configuration_hash(alike)} | made_with)
    for message in others:
        print(f"left out: {message}", file=sys.stderr)
    command = f"ost-hf study --config {config_path}"
    seeds = sorted({result["seed"] for result in found})
    if seeds != sorted(load_study(config_path).seeds):
        command += f" --seeds {' '.join(map(str, seeds))}"
    return {
        "commands": [command],
        "study": {name: getattr(study, name) for name in _DEFINING},
        "commits": commits_of(found),
        "machines": machines_of(found),
        "reference": study.reference,
        **dict(zip(("everything", "oracle"), study.bounds, strict=True)),
        "truth": study.truth,
        "methods": list(study.methods),
        "settings": list(study.settings),
        "results": found,
        "datamodelling": datamodelling,
    }


def report(results: dict[str, Any], folder: Path, stem: str) -> None:
    """Writes the table (and shows it) and the plot of accuracy against cost.

    Raises:
        ConfigError: If matplotlib is not installed.
    """
    from ost_hf.study.plot import plot_cost
    from ost_hf.study.table import as_markdown

    text = as_markdown(results)
    write_text(folder / f"{stem}.md", text)
    print(text)
    plot_cost(results, folder / f"{stem}.png")
