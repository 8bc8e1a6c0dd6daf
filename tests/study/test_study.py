"""A study: its arms, its resumption, and what it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from here import run_groups_here
from tiny_study import Record, write

from ost_hf.cli.main import main
from ost_hf.errors import DataError, RunDirectoryError
from ost_hf.runs.config import RunConfig, build_config
from ost_hf.selection.kept import Selection, read_selection
from ost_hf.selection.selector import select_rows
from ost_hf.study.config import load_study
from ost_hf.study.datamodelling import read_datamodelling
from ost_hf.study.description import describe_arm, describe_choice, describe_scores
from ost_hf.study.markers import identity, read_done, write_done
from ost_hf.study.plan import arms, configuration, groups
from ost_hf.study.run import collect
from ost_hf.tables.score_table import ScoreTable


def run_with(folder: Path, **sections: Record) -> RunConfig:
    """The configuration of a run directory."""
    return build_config({"run_dir": str(folder), **sections})


def study(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ost_hf.cli.main", "study", *words],
        capture_output=True, text=True, check=False, cwd=root, env={**os.environ},
    )  # fmt: skip


@pytest.mark.slow
def test_a_study_runs_resumes_and_reports(
    given: Record, tmp_path: Path, root: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(write(given, tmp_path))
    first = study(root, "--config", path)
    assert first.returncode == 0, first.stderr[-3000:]
    results = json.loads((tmp_path / "study" / "results.json").read_text())
    by_name = {(r["method"], r["seed"], r["protocol"]): r for r in results["results"]}
    # Two protocols for three methods, and the base model, with two seeds.
    assert len(by_name) == 14
    assert all(0 <= result["score"] <= 1 for result in by_name.values())
    assert by_name["one_step", 5, "A"]["steps"] == 1  # a quarter of the pool, a quarter of the steps
    assert by_name["one_step", 5, "B"]["steps"] == 4
    assert by_name["one_step", 5, "B"]["rows_kept"] == 10
    assert by_name["everything", 6, "A"]["steps"] == 4
    oracle = by_name["oracle", 6, "B"]
    assert oracle["clean_share"] == oracle["auc"]["utility"] == oracle["kept_by"]["clean"] == 1
    assert {"score", "select", "train", "evaluate"} == set(oracle["seconds"])
    verdicts = by_name["one_step", 5, "B"]["verdicts"]
    assert sum(sum(counts.values()) for counts in verdicts.values()) == 40
    assert not list((tmp_path / "study").rglob("target"))  # fine-tuned models are removed once they are evaluated

    scores = {(record["method"], record["seed"]): record["score"] for record in results["datamodelling"]}
    assert set(scores) == {(name, seed) for name in ("everything", "one_step", "oracle") for seed in (5, 6)}
    assert all(-1 <= score <= 1 for score in scores.values())

    table = (tmp_path / "study" / "results.md").read_text()
    assert "### tiny: keep 25%, Protocol A" in table
    assert "| **one_step** |" in table
    assert "random subsets, means over seeds" in table
    # With other weights or settings they would be others.
    changed = load_study(path)
    changed.common["training"]["learning_rate"] = 0.5
    with pytest.raises(RunDirectoryError, match="made with other methods, settings, data or models"):
        read_datamodelling(changed, groups(changed)[0])
    assert (tmp_path / "study" / "results.png").stat().st_size > 10_000

    # The seeds on two machines would have come to the same.
    assert all(set(result["weights"]) == {"proxy", "target"} for result in results["results"])
    assert all(set(result["data"]) == {"pool", "evaluation"} for result in results["results"])
    # Seeds and the folder of their data apart, repetitions are of one configuration.
    assert len({result["configuration"] for result in results["results"] if result["method"] == "one_step"}) == 1
    assert len({result["configuration"] for result in results["results"]}) == 4
    for seed in (5, 6):
        share = {name: [r for r in results[name] if r["seed"] == seed] for name in ("results", "datamodelling")}
        (tmp_path / f"{seed}.json").write_text(json.dumps(results | share))
    whole = tmp_path / "whole"
    assert (
        main(["study", "--results", *(str(tmp_path / f"{seed}.json") for seed in (5, 6)), "--output", str(whole)]) == 0
    )
    assert (whole / "results.md").read_text() == table

    # Nothing is done twice; a method that is new is all that is run. (Processes of groups' own are seen above.)
    run_groups_here(monkeypatch)
    monkeypatch.chdir(root)
    capfd.readouterr()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "study").rglob("result.json")}
    given["methods"]["random"] = {"scoring": {"scorer": "random"}}
    assert main(["study", "--config", str(write(given, tmp_path)), "--workers", "1"]) == 0
    second = capfd.readouterr().err
    assert all(p.stat().st_mtime_ns == at for p, at in before.items())
    # Both groups are heard of.
    assert "tiny, seed 5, random, keep-0.25-A" in second
    assert "tiny, seed 6, random, keep-0.25-B" in second
    assert "one_step" not in second

    # An arm of other settings is refused by name, and the others are run all the same.
    given["common"]["training"]["max_steps"] = 9
    given["methods"]["length"] = {"scoring": {"scorer": "length"}}
    assert main(["study", "--config", str(write(given, tmp_path)), "--seeds", "5"]) == 2
    third = capfd.readouterr().err
    assert "tiny, seed 5, oracle" in third
    assert "(training differs)" in third
    assert "tiny, seed 5, length, keep-0.25-B" in third


@pytest.mark.slow
def test_the_table_is_made_again_from_the_file(tmp_path: Path, root: Path) -> None:
    rows = [
        {
            "method": method, "setting": "one", "seed": seed, "keep_ratio": 0.5, "protocol": "B", "commit": "abc",
            "score": score + 0.01 * seed, "seconds": {"score": None, "select": 0.0, "train": 2.0, "evaluate": 1.0},
        }
        for method, score in (("auto", 0.7), ("everything", 0.4), ("oracle", 0.8))
        for seed in (0, 1, 2)
    ]  # fmt: skip
    machine = {
        "workers": 1,
        "processor": "a processor",
        "cores": 2,
        "accelerators": [],
        "python": "3.11",
        "libraries": {"torch": "2"},
    }
    given = {
        "commands": ["ost-hf study --config x.yaml"], "commits": ["abc"], "machines": [machine],
        "reference": "auto", "everything": "everything", "oracle": "oracle", "settings": ["one"],
        "methods": ["everything", "auto", "oracle"], "results": rows, "truth": None, "datamodelling": [], "study": {},
    }  # fmt: skip
    (tmp_path / "gate.json").write_text(json.dumps(given))
    made = study(root, "--results", str(tmp_path / "gate.json"))
    assert made.returncode == 0, made.stderr
    assert "auto goes 75.0% [75.0, 75.0]" in made.stdout
    assert "| everything | 41.0% [38.5, 43.5] | +30.0 [+30.0, +30.0] |" in made.stdout
    assert (tmp_path / "gate.md").read_text() in made.stdout
    assert study(root, "--results", str(tmp_path / "none.json")).returncode == 2


def test_kept_copies_are_told_and_a_pool_without_copies_is_refused(tmp_path: Path) -> None:
    pool = {"question": ["1?", "2?", "2?"], "answer": ["1", "2", "2"], "kind": ["a", "b", "b"], "number": [1, 2, 3]}
    pq.write_table(pa.table(pool), tmp_path / "pool.parquet")
    kept = pa.table({"example_id": ["x", "y", "z"], "row": [0, 1, 2], "kept": [False, True, True]})
    Selection(kept).write(tmp_path)
    (tmp_path / "metrics.json").write_text('{"exact_match": 0.5}')
    config = run_with(tmp_path, pool={"path": str(tmp_path / "pool.parquet")})
    assert describe_arm(config, None, copies="kind")["extra_copies_kept"] == 1
    with pytest.raises(DataError, match="copies: no two rows of the pool share a value of the column 'number'"):
        describe_arm(config, None, copies="number")


def test_scores_are_described_by_how_they_tell_clean_rows_from_others(tmp_path: Path) -> None:
    """Clean rows have high utilities and p-values, and low losses; a row that had no second look does not count."""
    kinds = ["clean", "junk", "clean", "junk"]
    pool = {"question": ["1?", "2?", "3?", "4?"], "answer": ["1", "2", "3", "4"], "kind": kinds}
    pq.write_table(pa.table(pool), tmp_path / "pool.parquet")
    columns = {
        "utility": [0.9, 0.1, 0.8, 0.85], "loss": [1.0, 2.0, 1.1, 1.05],
        "late_loss": [0.1, 0.2, 0.15, None], "corrupted_p": [0.9, 0.1, 0.8, None],
    }  # fmt: skip
    rows = {"row": range(4), "example_id": ["a", "b", "c", "d"], "status": ["ok"] * 4, "detail": [""] * 4}
    table = ScoreTable(tmp_path / "scores")
    table.write_manifest({}, rows=4)
    table.write_part(pa.table({**rows, **columns}))
    config = run_with(tmp_path, pool={"path": str(tmp_path / "pool.parquet")})
    auc = describe_scores(config, {"column": "kind", "clean": "clean"})["auc"]
    assert auc == {"utility": 0.75, "loss": 0.75, "late_loss": 1.0, "corrupted_p": 1.0}


def test_how_far_a_choice_leans_on_the_second_look(tmp_path: Path) -> None:
    """Half of a pool has p-values of the smallest; three rows had no second look, and one no score."""
    count = 80
    p: list[float | None] = [1 / 101 if row < 40 else (row - 39) / 40 for row in range(count)]
    p[77:] = [None] * 3
    utility: list[float | None] = [row / count for row in range(count - 1)]
    records = [
        {"row": row, "example_id": f"id{row:02}", "status": "ok", "detail": "", "late_loss": 1.0, "corrupted_p": p[row],
         "utility": utility[row] if row < 79 else None, "p_value_anchors": 100}
        for row in range(count)
    ]  # fmt: skip
    table = ScoreTable(tmp_path / "scores")
    table.write_manifest({}, rows=count)
    table.write_part(pa.Table.from_pylist(records))
    config = run_with(tmp_path, selection={"keep_count": 20})
    select_rows(table.read(), config.selection).write(tmp_path)
    kept = {row["row"] for row in read_selection(tmp_path).table.to_pylist() if row["kept"]}
    as_clean = {row for row in range(40, 77) if (row - 39) / 40 > 0.2}
    leans = describe_choice(config)["leans"]
    assert leans["pool_as_clean"] == len(as_clean) / count
    assert kept <= as_clean
    assert leans["kept_as_clean"] == 1
    assert leans["kept_by_utility_too"] == len(kept & set(range(59, 79))) / 20
    assert describe_choice(run_with(tmp_path, selection={"keep_count": 20, "order": "top"})) == {}
    # As where every second look failed, and where there was none.
    table.write_part(pa.Table.from_pylist([{**record, "corrupted_p": None} for record in records]))
    assert describe_choice(config) == {}
    table.write_part(pa.Table.from_pylist(records).drop_columns(["corrupted_p", "late_loss", "p_value_anchors"]))
    assert describe_choice(config) == {}


def test_what_was_made_with_other_files_is_not_taken_for_done(given: Record, tmp_path: Path) -> None:
    study = load_study(write(given, tmp_path))
    group = groups(study)[0]
    config = configuration(study, group, "one_step")
    group.data.mkdir(parents=True)
    (group.data / "pool.parquet").write_bytes(b"rows")
    marker = tmp_path / "result.json"
    assert read_done(marker, config) is None
    made_with = identity(config)
    write_done(marker, config, made_with, {"score": 0.5})
    assert read_done(marker, config) == {"score": 0.5}
    (group.data / "pool.parquet").write_bytes(b"other rows")
    with pytest.raises(RunDirectoryError, match=r"\(files differs\)"):
        read_done(marker, config)
    # Nor is what began with other files than lie there when it ends.
    with pytest.raises(RunDirectoryError, match="changed while it was made"):
        write_done(marker, config, made_with, {"score": 0.5})


def test_results_are_of_all_seeds_that_are_there(given: Record, tmp_path: Path) -> None:
    path = write(given, tmp_path)
    study = load_study(path)
    (arm,) = arms(study, "untrained")
    for seed in (6, 7):  # the YAML has 5 and 6
        (group,) = groups(replace(study, seeds=[seed]))
        config = configuration(study, group, "untrained", arm)
        result = {"method": "untrained", "setting": "tiny", "seed": seed, "commit": "abc", "version": "0"}
        config.folder.mkdir(parents=True)
        write_done(config.folder / "result.json", config, identity(config), result)
    for name in ("seed-8", "seed-mine", "seed-mine/untrained/untrained"):
        (study.folder / "tiny" / name).mkdir(parents=True, exist_ok=True)
    (study.folder / "tiny" / "seed-mine" / "untrained" / "untrained" / "result.json").write_text("{}")
    results = collect(study, str(path))
    assert [result["seed"] for result in results["results"]] == [6, 7]
    assert results["commands"] == [f"ost-hf study --config {path} --seeds 6 7"]
