"""A study's processes: their locks, their devices, and what they refuse or survive."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parent))

from tiny_study import Record, note_devices, write

from ost_hf.study.config import load_study
from ost_hf.study.devices import device_of_worker, listed_devices
from ost_hf.study.plan import groups
from ost_hf.study.run import run_study
from ost_hf.study.worker import run_group


def test_two_studies_do_not_write_to_one_folder(
    given: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_study(write(given, tmp_path))
    group = groups(config)[0]
    group.folder.mkdir(parents=True)
    with FileLock(group.folder / "lock"):
        assert run_group(config, group, ["untrained"]) == []
    assert "tiny, seed 5: left to another `ost-hf study`" in capsys.readouterr().err
    assert not (group.folder / "log.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EACCES])
def test_a_file_system_without_locks_is_said_and_other_errors_are_failures(
    given_data: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    class Unlockable(FileLock):  # type: ignore[misc, valid-type]
        def acquire(self, *arguments: object, **named: object) -> None:
            raise OSError(number, os.strerror(number))

    config = load_study(write(given_data, tmp_path))
    monkeypatch.setattr("ost_hf.study.worker.FileLock", Unlockable)
    failures = run_group(config, groups(config)[0], ["untrained"])
    if number == errno.ENOLCK:
        assert failures == []
        assert "start no second study there" in capsys.readouterr().err
    else:
        assert "Permission denied" in failures[0]


@pytest.mark.parametrize(
    ("value", "devices"),
    [
        ("3,5", ["3", "5"]),
        (" 0 , 1", ["0", "1"]),
        ("GPU-8932f937-d72c,MIG-3", ["GPU-8932f937-d72c", "MIG-3"]),
        ("1,-1,2", ["1"]),
        ("-1", []),
        ("", []),
    ],
)
def test_devices_are_those_that_cuda_reads_from_the_list(value: str, devices: list[str]) -> None:
    assert listed_devices(value) == devices


def test_workers_have_the_devices_in_turn_and_none_where_there_is_none() -> None:
    assert [device_of_worker(slot, ["3", "5"]) for slot in range(3)] == ["3", "5", "3"]
    assert [device_of_worker(slot, ["GPU-1"]) for slot in range(2)] == ["GPU-1", "GPU-1"]
    assert device_of_worker(0, []) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accelerate", "seen"),
    [({}, {"3", "5"}), ({"train": "accelerate_configs/multi_gpu.yaml"}, {"3,5"})],
)
def test_each_worker_sees_a_device_of_its_own_unless_stages_are_launched(
    given: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accelerate: Record, seen: set[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr("ost_hf.study.worker.run_group", note_devices)
    given["common"]["accelerate"] = accelerate
    study = load_study(write(given | {"seeds": [5, 6, 7]}, tmp_path))
    assert run_study(study, groups(study), ["untrained"]) == []
    found = [(group.data / "seen").read_text() for group in groups(study)]
    assert set(found[:2]) == set(found) == seen


@pytest.mark.slow
def test_a_killed_process_takes_no_other_group_with_it(
    given: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first group's prepare command kills the process that called it."""
    kill = "import os, signal, sys; '5' in sys.argv[1:] and os.kill(os.getppid(), signal.SIGKILL)"
    given["common"]["prepare"] = ["python", "-c", kill, "{seed}"]
    config = load_study(write(given, tmp_path))
    failures = run_study(config, groups(config), ["untrained"])
    assert len(failures) == 2
    assert "tiny, seed 5: its process was killed, or ran out of memory" in failures
    assert any("tiny, seed 6: DataError" in failure and "pool.parquet" in failure for failure in failures)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": {"column": "kinds", "clean": "clean"}}, "truth: the pool has no column 'kinds'; there are: "),
        ({"truth": {"column": "kind", "clean": "right"}}, "truth: no row of the pool has kind 'right'; there are: "),
        ({"count_by": ["source"]}, "count_by: the pool has no column 'source'"),
        ({"copies": "group"}, "copies: the pool has no column 'group'"),
    ],
)
def test_columns_that_are_not_there_are_named_before_anything_is_trained(
    given_data: Record, tmp_path: Path, change: Record, message: str
) -> None:
    config = load_study(write({**given_data, **change}, tmp_path))
    failures = run_group(config, groups(config)[0], ["one_step"])
    assert len(failures) == 1
    assert message in failures[0]
    assert not (groups(config)[0].folder / "one_step").exists()
