"""All arms of one setting and seed, one after another in one process.

A method's scores are made once, in ``setting/seed-N/method``; each cut of them is a run directory inside it, with a
link to the scores. ``scored.json`` and ``result.json`` are written last and mark what is done.
"""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from ost_hf.errors import ConfigError, OSTError, RunDirectoryError
from ost_hf.files import write_json
from ost_hf.runs.config import RunConfig
from ost_hf.runs.whole import ORDER, preflight, start_stage
from ost_hf.study.config import StudyConfig
from ost_hf.study.datamodelling import write_datamodelling
from ost_hf.study.description import describe_arm, describe_choice, describe_scores
from ost_hf.study.markers import identity, read_done, write_done
from ost_hf.study.plan import Arm, Group, arms, configuration, prepare_command
from ost_hf.study.provenance import available_cores, machine, version_of_code

Record = dict[str, Any]

# What systems say of a file system that knows no locks, as some clusters' do.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def run_group(study: StudyConfig, group: Group, methods: list[str]) -> list[str]:
    """Runs what is missing of a group; its output goes to ``log.txt`` in its folder.

    Returns:
        One message for each method that failed.
    """
    group.folder.mkdir(parents=True, exist_ok=True)
    version_of_code()  # as it is imported now, whatever is committed while arms run
    lock = FileLock(group.folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(
            f"{group.setting}, seed {group.seed}: left to another `ost-hf study`, which is at work in {group.folder}; "
            "run this one again for what that one does not do",
            file=sys.stderr,
        )
        return []
    except (OSError, NotImplementedError) as error:  # the latter from older filelocks, without flock
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            return [f"{group.setting}, seed {group.seed}: {group.folder / 'lock'}: {error}"]
        print(f"{group.folder} cannot be locked ({error}): start no second study there", file=sys.stderr)
    try:
        return _run_locked(study, group, methods)
    finally:
        lock.release()


def _run_locked(study: StudyConfig, group: Group, methods: list[str]) -> list[str]:
    with _output_to(group.folder / "log.txt") as console:
        _share_cores(study.workers)
        try:
            _prepare(study, group)
            _check_columns(study, configuration(study, group, methods[-1]))
            _encode_pool(study, group, methods)
        except Exception as error:  # whatever it is, the other groups are still to be run
            traceback.print_exc()
            return [f"{group.setting}, seed {group.seed}: {type(error).__name__}: {error}"]
        failures = []
        for method in methods:
            # Stages end with a collection of garbage, which need not look at all that is imported by now.
            gc.freeze()
            try:
                _run_method(study, group, method, console)
            except Exception as error:  # whatever it is, the other methods are still to be run
                traceback.print_exc()
                failures.append(f"{group.setting}, seed {group.seed}, {method}: {type(error).__name__}: {error}")
                print(f"failed: {failures[-1]}", file=console)
        if study.datamodelling is not None and not failures and len(methods) == len(study.methods):
            try:
                write_datamodelling(study, group)
            except Exception as error:  # as above: what was trained is still to be reported
                traceback.print_exc()
                failures.append(f"{group.setting}, seed {group.seed}, datamodelling: {type(error).__name__}: {error}")
    return failures


@contextmanager
def _output_to(path: Path) -> Iterator[TextIO]:
    """Sends this process's output to a file: bars and libraries' chatter of many arms are not for a screen.

    Yields:
        The screen, for what is.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with path.open("a", buffering=1) as log, os.fdopen(os.dup(2), "w", buffering=1) as console:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
        try:
            yield console
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, original in enumerate(kept, start=1):
                os.dup2(original, number)
                os.close(original)


def _share_cores(workers: int) -> None:
    if "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(max(1, available_cores() // workers))


def _prepare(study: StudyConfig, group: Group) -> None:
    command = prepare_command(study, group)
    marker = group.folder / "prepared.json"
    if command is None or (marker.exists() and json.loads(marker.read_text()) == command):
        return
    if marker.exists():
        raise RunDirectoryError(
            f"{group.data} was made by another command ({' '.join(json.loads(marker.read_text()))}); "
            "choose another run_dir, or remove the folder"
        )
    group.data.mkdir(parents=True, exist_ok=True)
    words = [sys.executable if word == "python" else word for word in command]
    if subprocess.run(words, check=False).returncode != 0:
        raise OSTError(f"prepare failed: {' '.join(command)}; see {group.folder / 'log.txt'}")
    write_json(marker, command)


def _check_columns(study: StudyConfig, config: RunConfig) -> None:
    """Raises ``ConfigError`` now for a column that results would tell of after hours of work, and that is not there."""
    from ost_hf.data.rows import Rows

    if config.pool is None:
        return
    pool = Rows.load(config.pool).dataset
    truth = study.truth or {}
    for field, column in (
        ("truth", truth.get("column")),
        ("copies", study.copies),
        *(("count_by", c) for c in study.count_by),
    ):
        if column is not None and column not in pool.column_names:
            raise ConfigError(f"{field}: the pool has no column {column!r}; there are: {', '.join(pool.column_names)}")
    if truth and str(truth["clean"]) not in (kinds := set(map(str, pool[truth["column"]]))):
        raise ConfigError(
            f"truth: no row of the pool has {truth['column']} {truth['clean']!r}; there are: {sorted(kinds)}"
        )


def _encode_pool(study: StudyConfig, group: Group, methods: list[str]) -> None:
    """Encodes the pool (as far as the cache takes it) off the clock: else the first method would pay for all."""
    from ost_hf.data.encoding import Encoder
    from ost_hf.data.encoding.dataset import EncodedDataset
    from ost_hf.data.rows import Rows
    from ost_hf.models import load_processing_class

    config = configuration(study, group, methods[-1])
    for model in (config.proxy, config.target):
        if config.pool is None or model is None:
            continue
        pool = EncodedDataset(Rows.load(config.pool), Encoder(load_processing_class(model), config.encoding))
        for row in range(len(pool)):
            if not pool.keep(row):
                break


def _run_method(study: StudyConfig, group: Group, method: str, console: TextIO) -> None:
    for arm in arms(study, method):
        config = configuration(study, group, method, arm)
        done = read_done(config.folder / "result.json", config)
        if done is None:
            preflight(config, ("evaluate",) if arm.protocol is None else ORDER)
            made_with = identity(config)
            if arm.protocol is None:
                result = _run_untrained(config)
            else:
                scored = _run_scoring(configuration(study, group, method))
                result = _run_arm(study, config, arm, scored)
                result["scored_at"] = scored.get("commit") or scored.get("version")
            result |= {"method": method, "setting": group.setting, "seed": group.seed}
            result |= {"keep_ratio": arm.keep_ratio, "protocol": arm.protocol} | version_of_code()
            result["machine"] = machine(study.workers)
            write_done(config.folder / "result.json", config, made_with, result)
            where = f"{group.setting}, seed {group.seed}, {method}, {arm.name}"
            print(f"{time.strftime('%H:%M:%S')} {where}: {result['score']:.1%}", file=console)


def _run_scoring(config: RunConfig) -> Record:
    """The pool's scores for a method, and what they cost."""
    marker = config.folder / "scored.json"
    done = read_done(marker, config)
    if done is not None:
        return done
    made_with = identity(config)
    resumed = (config.folder / "scores").exists()
    started = time.perf_counter()
    start_stage(config, "score")
    # What an interrupted attempt took is not known.
    seconds = None if resumed else time.perf_counter() - started
    scored = {"seconds": seconds, **version_of_code()}
    write_done(marker, config, made_with, scored)
    return scored


def _run_arm(study: StudyConfig, config: RunConfig, arm: Arm, scored: Record) -> Record:
    """Select, train, evaluate."""
    config.folder.mkdir(parents=True, exist_ok=True)
    link = config.folder / "scores"
    if not link.is_symlink():
        link.symlink_to(Path("..") / "scores", target_is_directory=True)
    seconds = {"score": scored["seconds"]}
    seconds["select"] = _timed(config, "select")
    config = _with_steps(config, arm)
    seconds["train"] = _timed(config, "train")
    seconds["evaluate"] = _timed(config, "evaluate")
    result = (
        describe_arm(config, study.truth, study.count_by, study.copies)
        | describe_choice(config)
        | describe_scores(config, study.truth)
        | {"seconds": seconds}
    )
    if not study.keep_targets:
        shutil.rmtree(config.folder / "target")
    return result


def _run_untrained(config: RunConfig) -> Record:
    seconds = {"evaluate": _timed(config, "evaluate")}
    metrics = json.loads((config.folder / "metrics.json").read_text())
    return {"score": metrics["exact_match"], "by_group": metrics.get("by_group", {}), "seconds": seconds}


def _timed(config: RunConfig, stage: str) -> float:
    started = time.perf_counter()
    start_stage(config, stage)
    return time.perf_counter() - started


def _with_steps(config: RunConfig, arm: Arm) -> RunConfig:
    """Protocol A's number of steps: in proportion to the kept share."""
    if arm.protocol != "A":
        return config
    from ost_hf.selection.kept import read_selection

    kept = read_selection(config.folder).table["kept"].to_pylist()
    wanted = max(1, round(config.training["max_steps"] * sum(kept) / len(kept)))
    return config.with_training(max_steps=wanted)
