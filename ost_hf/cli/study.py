"""``ost-hf study``: many runs side by side, from a YAML of its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ost_hf.errors import ConfigError, OSTError, unknown_key
from ost_hf.study.config import load_study
from ost_hf.study.plan import groups
from ost_hf.study.run import check_libraries, collect, report_again, run_study, write_results


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


def study(argv: Sequence[str]) -> None:
    """Runs the command.

    Raises:
        OSTError: For what the user can mend; arms that failed are named after all others were run.
    """
    args = build_parser().parse_args(argv)
    if args.results is not None:
        if args.collect or args.workers is not None:
            raise ConfigError("--results runs nothing: leave --collect and --workers away")
        part = {"method": args.methods, "setting": args.settings, "seed": args.seeds}
        report_again([Path(path) for path in args.results], args.output, part)
        return
    given = load_study(args.config, {} if args.workers is None else {"workers": args.workers})
    seeds, settings, methods = args.seeds or given.seeds, args.settings or given.settings, args.methods or given.methods
    for kind, names, known in (("setting", settings, given.settings), ("method", methods, given.methods)):
        for name in names:
            if name not in known:
                raise ConfigError(unknown_key(kind, name, known))
    # What is run may be a part, or more than the YAML has; what is collected is all that is there.
    wanted = [group for group in groups(replace(given, seeds=sorted(set(seeds)))) if group.setting in settings]
    check_libraries()
    failures = [] if args.collect else run_study(given, wanted, list(methods))
    results = collect(given, args.config)
    if results["results"]:
        write_results(results, Path(args.output) if args.output else given.folder)
    elif args.collect:
        print(f"nothing is done yet in {given.folder}")
    if failures:
        raise OSTError(f"{len(failures)} of the study's methods failed:\n  " + "\n  ".join(failures))
