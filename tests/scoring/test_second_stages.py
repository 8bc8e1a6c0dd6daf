"""A second stage of one's own: ten lines that read the scorer's table and add a column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest

from ost_hf.cli.main import main
from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError, RunDirectoryError
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.runner import score_pool
from ost_hf.scoring.second_stages import SECOND_STAGES, second_stage
from ost_hf.tables.score_table import ScoreTable

RANKS = """
from dataclasses import dataclass, field

import pyarrow as pa

from ost_hf.scoring.second_stages import second_stage


@dataclass(frozen=True)
class RanksOptions:
    best: float = field(default=1.0, metadata={"help": "what the best row gets"})


@second_stage("ranks", options=RanksOptions, columns=["rank_share"])
class Ranks:
    def run(self, job, first, build):
        table = first.read(columns=["row", "utility"])
        rank = (1 + table["utility"].to_numpy().argsort().argsort()) / len(table)
        return pa.table({"row": table["row"], "rank_share": job.config.stage_options.best * rank})
"""


@pytest.fixture(autouse=True)
def _own_stages() -> Iterator[None]:
    """Stages of a test are gone after it; ours are imported once."""
    yield
    for name in {"plain", "ranks", "refusing", "top"} & set(SECOND_STAGES._entries):
        del SECOND_STAGES._entries[name]


@pytest.fixture
def request_here(vlm_path: str, pool_dataset: datasets.Dataset, tmp_path: Path) -> ScoringRequest:
    config = ScoringConfig("length", part_size=16)
    return ScoringRequest(tmp_path / "run", Rows(pool_dataset), None, ProxyConfig(vlm_path), config)


@dataclass(frozen=True)
class TopOptions:
    count: int = field(default=5, metadata={"help": "rows that are looked at"})


def with_top(request: ScoringRequest, **options: int) -> ScoringRequest:
    """Scores the longest answers again: a tenth of their length, and a column that tells which they are."""

    @second_stage("top", options=TopOptions, columns=["looked_at"])
    class Top:
        def run(self, job, first, build):
            best = first.read().sort_by([("utility", "descending"), ("row", "ascending")])
            best = best[: job.config.stage_options.count]
            columns = {"utility": best["utility"].to_numpy() / 10, "looked_at": [1.0] * len(best)}
            return pa.table({"row": best["row"], **columns})

    return replace(request, scoring=replace(request.scoring, second_stage="top", sections={"top": options}))


def test_its_columns_stand_in_the_score_table(request_here: ScoringRequest) -> None:
    request = with_top(request_here, count=7)
    assert request.scoring.columns == {"looked_at"}
    plain = score_pool(replace(request_here, run_dir=request_here.run_dir / "plain")).read()
    table = score_pool(request)
    found = table.read()
    looked_at = found["looked_at"].is_valid().to_numpy()
    utility = plain["utility"].to_numpy()
    assert looked_at.sum() == 7
    assert utility[looked_at].min() >= utility[~looked_at].max()
    # What it says of a row replaces the scorer's word, and all else stays.
    assert np.array_equal(found["utility"].to_numpy(), np.where(looked_at, utility / 10, utility))
    assert ScoreTable(table.folder / "first").read()["utility"] == plain["utility"]
    for name in set(plain.column_names) - {"utility"}:
        assert found[name] == plain[name]
    assert table.manifest()["identity"]["scoring"]["top"] == {"count": 7}


def test_a_killed_run_goes_on(request_here: ScoringRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    request = with_top(request_here)
    whole = score_pool(replace(request, run_dir=request.run_dir / "whole")).read()
    write, written = ScoreTable.write_part, []

    def die_at_sixth(self: ScoreTable, rows: pa.Table) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(self.folder.name)
        write(self, rows)

    monkeypatch.setattr(ScoreTable, "write_part", die_at_sixth)
    with pytest.raises(KeyboardInterrupt):
        score_pool(request)
    assert written == ["first"] * 4 + ["scores"]
    monkeypatch.undo()
    first = {path: path.stat().st_mtime_ns for path in (request.run_dir / "scores" / "first").glob("part-*")}
    found = score_pool(request).read()
    assert found.equals(whole)
    assert all(path.stat().st_mtime_ns == at for path, at in first.items())
    with pytest.raises(RunDirectoryError, match=r"scoring\.top\.count was 5, now 6"):
        score_pool(with_top(request_here, count=6))


def test_a_stage_that_cannot_go_on_says_so_before_the_first_row(request_here: ScoringRequest) -> None:
    @second_stage("refusing")
    class Refusing:
        def check(self, job, proxy):
            raise ConfigError(f"not {len(job.pool)} rows, with {proxy}")

        def run(self, job, first, build):
            raise AssertionError("run all the same")

    with pytest.raises(ConfigError, match="not 60 rows, with None"):
        score_pool(replace(request_here, scoring=ScoringConfig("length", second_stage="refusing")))
    assert not list(request_here.run_dir.rglob("part-*"))


def test_its_options_are_checked() -> None:
    @second_stage("top", options=TopOptions)
    class Top:
        pass

    @second_stage("plain")
    class Plain:
        pass

    config = ScoringConfig.from_mapping({"second_stage": "top", "top": {"count": 3}})
    assert config.stage_options == TopOptions(3)
    with pytest.raises(ConfigError, match=r"unknown field of section scoring\.top 'counts' \(did you mean 'count'"):
        ScoringConfig.from_mapping({"second_stage": "top", "top": {"counts": 3}})
    with pytest.raises(ConfigError, match=r"scoring\.top\.count must be int, got 'many'"):
        ScoringConfig(second_stage="top", sections={"top": {"count": "many"}})
    with pytest.raises(ConfigError, match="plain has no options of its own"):
        ScoringConfig(second_stage="plain", sections={"plain": {"count": 3}})
    with pytest.raises(ConfigError, match=r"unknown second stage 'tops' .*there are: cascade, plain, second_look, top"):
        ScoringConfig(second_stage="tops")


def test_a_file_brings_one_to_the_command_line(tmp_path: Path, vlm_path: str, pool_dataset: datasets.Dataset) -> None:
    (tmp_path / "ranks_stage.py").write_text(RANKS)
    pool_dataset.to_parquet(tmp_path / "pool.parquet")
    words = [
        "--run_dir", str(tmp_path / "run"), "--pool.path", str(tmp_path / "pool.parquet"), "--proxy.model", vlm_path,
        "--scoring.scorer", "length", "--import", str(tmp_path / "ranks_stage.py"),
        "--scoring.second_stage", "ranks", "--scoring.ranks.best", "60",
    ]  # fmt: skip
    assert main(["score", *words]) == 0
    ranks = ScoreTable.at(tmp_path / "run").read()["rank_share"].to_pylist()
    assert sorted(ranks) == pytest.approx(range(1, 61))
