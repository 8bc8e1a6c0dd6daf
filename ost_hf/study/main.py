"""The command's flags, its workers, and what it writes: ``results.json``, ``results.md``, ``results.png``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ost_hf.errors import ConfigError, OSTError, RunDirectoryError, unknown_key
from ost_hf.files import write_whole
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


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``ost-hf study``."""
    parser = argparse.ArgumentParser(
        prog="ost-hf study",
        description="Compare ways of selecting: settings x methods x keep ratios x protocols x seeds, from one YAML. "
        "An interrupted study goes on where it stopped.",
        allow_abbrev=False,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", metavar="FILE", help="the study's YAML; runs what is missing")
    source.add_argument(
        "--results", metavar="FILE", nargs="+", help="results.json: only table and plot are made; several: put together"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes side by side, in place of the YAML's")
    parser.add_argument(
        "--seeds", type=int, nargs="+", metavar="SEED",
        help="run these alone, or more than the YAML's (of --results: take these alone)",
    )  # fmt: skip
    parser.add_argument("--settings", nargs="+", metavar="NAME", help="run (of --results: take) these alone")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="run (of --results: take) these alone")
    parser.add_argument("--collect", action="store_true", help="run nothing: results of what is done so far")
    parser.add_argument("--output", metavar="FOLDER", help="folder for results, table and plot; by default run_dir")
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command.

    Raises:
        OSTError: For what the user can mend; arms that failed are named after all others were run.
    """
    args = build_parser().parse_args(argv)
    if args.results is not None:
        if args.collect or args.workers is not None:
            raise ConfigError("--results runs nothing: leave --collect and --workers away")
        part = {"method": args.methods, "setting": args.settings, "seed": args.seeds}
        _report_again([Path(path) for path in args.results], args.output, part)
        return
    study = load_study(args.config, {} if args.workers is None else {"workers": args.workers})
    seeds, settings, methods = args.seeds or study.seeds, args.settings or study.settings, args.methods or study.methods
    for kind, names, known in (("setting", settings, study.settings), ("method", methods, study.methods)):
        for name in names:
            if name not in known:
                raise ConfigError(unknown_key(kind, name, known))
    # What is run may be a part, or more than the YAML has; what is collected is all that is there.
    wanted = [group for group in groups(replace(study, seeds=sorted(set(seeds)))) if group.setting in settings]
    _check_libraries()
    failures = [] if args.collect else run_study(study, wanted, list(methods))
    results = collect(study, args.config)
    if results["results"]:
        write_results(results, Path(args.output) if args.output else study.folder)
    elif args.collect:
        print(f"nothing is done yet in {study.folder}")
    if failures:
        raise OSTError(f"{len(failures)} of the study's methods failed:\n  " + "\n  ".join(failures))


def _report_again(paths: list[Path], output: str | None, part: dict[str, list[Any] | None]) -> None:
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
    text = json.dumps(results, indent=1) + "\n"
    write_whole(folder / "results.json", lambda temporary: temporary.write_text(text))
    report(results, folder, "results")


def _check_libraries() -> None:
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
        "everything": study.everything,
        "oracle": study.oracle,
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
    write_whole(folder / f"{stem}.md", lambda temporary: temporary.write_text(text))
    print(text)
    plot_cost(results, folder / f"{stem}.png")
