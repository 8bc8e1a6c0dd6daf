"""The command's flags, its workers, and what it writes: ``results.json``, ``table.md``, ``cost.png``."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from ost_hf.cli.study.config import StudyConfig, load_study
from ost_hf.cli.study.plan import arms, configuration, groups
from ost_hf.errors import ConfigError, OSTError
from ost_hf.files import write_whole


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
    source.add_argument("--results", metavar="FILE", help="a results.json: only its table and plot are made")
    parser.add_argument("--workers", type=int, metavar="N", help="processes side by side, in place of the YAML's")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="in place of the YAML's")
    parser.add_argument("--settings", nargs="+", metavar="NAME", help="some of the YAML's settings")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="some of the YAML's methods")
    parser.add_argument("--collect", action="store_true", help="run nothing: results of what is done so far")
    parser.add_argument("--output", metavar="FOLDER", help="for results, table and plot; by default run_dir")
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command.

    Raises:
        OSTError: For what the user can mend; arms that failed are named after all others were run.
    """
    args = build_parser().parse_args(argv)
    if args.results is not None:
        path = Path(args.results)
        if not path.is_file():
            raise ConfigError(f"there is no {path}")
        report(json.loads(path.read_text()), Path(args.output) if args.output else path.parent, path.stem)
        return
    changes = {name: getattr(args, name) for name in ("workers", "seeds") if getattr(args, name) is not None}
    study = load_study(args.config, changes)
    study = _some(study, args.settings, args.methods)
    failures = [] if args.collect else run_study(study)
    results = collect(study, args.config)
    output = Path(args.output) if args.output else study.folder
    output.mkdir(parents=True, exist_ok=True)
    if results["results"]:
        text = json.dumps(results, indent=1) + "\n"
        write_whole(output / "results.json", lambda temporary: temporary.write_text(text))
        report(results, output, "results")
    if failures:
        raise OSTError(f"{len(failures)} of the study's methods failed:\n  " + "\n  ".join(failures))


def run_study(study: StudyConfig) -> list[str]:
    """Runs what is missing, groups side by side in processes of their own.

    Returns:
        One message for each method that failed.

    Raises:
        ConfigError: Before anything runs, if an arm's configuration is not right.
    """
    from ost_hf.cli.study.worker import run_group

    wanted = groups(study)
    for group in wanted:
        for method in study.methods:
            for arm in arms(study, method):
                configuration(study, group, method, arm)
    failures: list[str] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(study.workers, len(wanted)), mp_context=context) as pool:
        futures = [pool.submit(run_group, study, group) for group in wanted]
        for done, future in enumerate(as_completed(futures), start=1):
            failures += future.result()
            print(f"{done} of {len(wanted)} settings and seeds done", file=sys.stderr)
    return failures


def collect(study: StudyConfig, config_path: str) -> dict[str, Any]:
    """All results that are there, and where they come from."""
    from ost_hf.cli.study.provenance import machine

    found, datamodelling = [], []
    for group in groups(study):
        scored = group.folder / "datamodelling.json"
        if study.datamodelling is not None and scored.exists():
            datamodelling += json.loads(scored.read_text())
        for method in study.methods:
            for arm in arms(study, method):
                path = group.folder / method / arm.name / "result.json"
                if path.exists():
                    found.append(json.loads(path.read_text())["result"])
    return {
        "command": f"ost-hf study --config {config_path}",
        "commits": sorted({result["commit"] or result["version"] for result in found}),
        "machine": machine(),
        "workers": study.workers,
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
    from ost_hf.reporting.study_plot import plot_cost
    from ost_hf.reporting.study_table import as_markdown

    text = as_markdown(results)
    write_whole(folder / f"{stem}.md", lambda temporary: temporary.write_text(text))
    print(text)
    plot_cost(results, folder / f"{stem}.png")


def _some(study: StudyConfig, settings: list[str] | None, methods: list[str] | None) -> StudyConfig:
    from dataclasses import replace

    from ost_hf.errors import unknown_key

    for kind, names, known in (("setting", settings, study.settings), ("method", methods, study.methods)):
        for name in names or []:
            if name not in known:
                raise ConfigError(unknown_key(kind, name, known))
    chosen_settings = {name: study.settings[name] for name in settings or study.settings}
    chosen_methods = {name: study.methods[name] for name in methods or study.methods}
    reference = study.reference if study.reference in chosen_methods else next(iter(chosen_methods))
    return replace(study, settings=chosen_settings, methods=chosen_methods, reference=reference)
