"""Pushing a curated dataset with the real clients against a stand-in of the Hub, and loading it back."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hub_stand_in import HubStandIn
from PIL import Image
from workplace import Workplace, load_rows

from ost_hf.data.config import DatasetConfig
from ost_hf.data.rows import Rows
from ost_hf.errors import DataError
from ost_hf.hub.config import HubConfig
from ost_hf.hub.push import _with_files, kept_dataset, push_curated
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.runner import score_pool
from ost_hf.selection.config import SelectionConfig
from ost_hf.selection.kept import Selection
from ost_hf.selection.selector import select_rows
from ost_hf.tables.score_table import ScoreTable

POOL_ROWS, BROKEN_ROW, KEPT_ROWS = 20, 7, 6


def score_and_select(run_dir: Path, pool: Rows, model: str) -> None:
    score_pool(ScoringRequest(run_dir, pool, None, ProxyConfig(model=model), ScoringConfig(scorer="random")))
    keep(run_dir, KEPT_ROWS)


def keep(run_dir: Path, count: int) -> None:
    select_rows(ScoreTable(run_dir / "scores").read(), SelectionConfig(keep_count=count)).write(run_dir)


@pytest.fixture(scope="module")
def workplace(
    tmp_path_factory: pytest.TempPathFactory, hub: HubStandIn, pool_dataset: datasets.Dataset, vlm_path: str
) -> Iterator[Workplace]:
    """Twenty rows, of which one has an image that cannot be read; six are kept."""
    place = Workplace(tmp_path_factory.mktemp("push"), hub)
    records = pool_dataset.select(range(POOL_ROWS)).cast_column("image", datasets.Image(decode=False)).to_list()
    records[BROKEN_ROW]["image"] = {"bytes": b"no image", "path": None}
    datasets.Dataset.from_list(records, features=pool_dataset.features).to_parquet(place.pool_path)
    score_and_select(place.run_dir, place.pool, vlm_path)
    yield place
    place.close()


@pytest.fixture(scope="module")
def pushed(workplace: Workplace) -> Workplace:
    """The same after a first push to ``me/curated``; the commit's name is kept, since another test pushes again."""
    flags = ("--pool.path", str(workplace.pool_path), "--hub.repo_id", "me/curated", "--hub.license", "cc-by-4.0")
    done = workplace.push(*flags)
    assert done.returncode == 0, done.stderr
    workplace.first_push = workplace.hub.repositories["me/curated"].branches["main"]
    return workplace


@pytest.fixture(scope="module")
def loaded(pushed: Workplace) -> tuple[datasets.DatasetDict, datasets.DatasetDict]:
    return pushed.load_back("me/curated", pushed.first_push)


def test_stand_in_satisfies_the_client(tmp_path: Path, hub: HubStandIn) -> None:
    command = [sys.executable, str(Path(__file__).with_name("stand_in_client.py"))]
    environment = Workplace(tmp_path, hub).environment
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_loaded_rows_are_the_kept_ones_with_their_utilities(
    pushed: Workplace, loaded: tuple[datasets.DatasetDict, datasets.DatasetDict]
) -> None:
    kept, pool = loaded[0]["train"], pushed.pool
    selected = Selection.read(pushed.run_dir).kept.to_pylist()
    assert len(kept) == len(selected) == KEPT_ROWS
    assert kept["example_id"][:] == [record["example_id"] for record in selected]
    assert kept["example_id"][:] == [pool.example_ids[record["row"]] for record in selected]
    assert kept["ost_utility"][:] == [record["utility"] for record in selected]
    assert kept["ost_rank"][:] == [record["rank"] for record in selected]
    assert sorted(kept["ost_rank"]) == list(range(1, KEPT_ROWS + 1))
    assert kept.column_names == [*pool.dataset.column_names, "example_id", "ost_utility", "ost_rank"]
    for got, record in zip(kept, selected, strict=True):
        wanted = pool.dataset[record["row"]]
        assert got["image"].tobytes() == wanted["image"].tobytes()
        assert {name: got[name] for name in wanted if name != "image"} == {
            name: value for name, value in wanted.items() if name != "image"
        }


@pytest.mark.slow
def test_loaded_scores_hold_every_row_of_the_pool(
    pushed: Workplace, loaded: tuple[datasets.DatasetDict, datasets.DatasetDict]
) -> None:
    scores = loaded[1]["train"]
    assert scores.to_list() == ScoreTable(pushed.run_dir / "scores").read().to_pylist()
    assert scores["row"][:] == list(range(POOL_ROWS))
    assert [row["row"] for row in scores if row["utility"] is None] == [BROKEN_ROW]
    assert scores[BROKEN_ROW]["status"] == "bad_image"


@pytest.mark.slow
def test_card_names_configurations_licence_and_counts(pushed: Workplace) -> None:
    head, text = pushed.card("me/curated", pushed.first_push)
    assert {item["config_name"] for item in head["configs"]} == {"default", "scores"}
    assert {info["config_name"]: info["splits"][0]["num_examples"] for info in head["dataset_info"]} == {
        "default": KEPT_ROWS,
        "scores": POOL_ROWS,
    }
    assert "ost-hf" in head["tags"]
    assert head["license"] == "cc-by-4.0"
    assert f"{KEPT_ROWS} rows of `pool.parquet`, selected from a pool of {POOL_ROWS} " in text
    assert "| `ok` | 19 |" in text and "| `bad_image` | 1 |" in text


@pytest.mark.slow
def test_repository_is_private_by_default(pushed: Workplace) -> None:
    assert pushed.hub.repositories["me/curated"].private


@pytest.mark.slow
def test_second_push_replaces_the_first(pushed: Workplace) -> None:
    keep(pushed.run_dir, KEPT_ROWS - 2)
    # The run directory's config.yaml remembers the pool.
    done = pushed.push("--hub.repo_id", "me/curated")
    keep(pushed.run_dir, KEPT_ROWS)
    assert done.returncode == 0, done.stderr
    kept, scores = pushed.load_back("me/curated")
    assert kept["train"].num_rows == KEPT_ROWS - 2
    assert scores["train"].num_rows == POOL_ROWS
    head, text = pushed.card("me/curated")
    assert len(head["configs"]) == 2 and head["license"] == "cc-by-4.0"
    assert f"{KEPT_ROWS - 2} rows of `pool.parquet`" in text
    assert f"{KEPT_ROWS} rows of" not in text


@pytest.mark.slow
def test_branch_gets_its_own_card(pushed: Workplace, tmp_path: Path) -> None:
    # A run directory remembers the branch; other tests push from this one.
    run_dir = shutil.copytree(pushed.run_dir, tmp_path / "run")
    flags = ("--pool.path", str(pushed.pool_path), "--hub.repo_id", "me/branched", "--hub.revision", "candidate")
    done = pushed.push("--run_dir", str(run_dir), *flags)
    assert done.returncode == 0, done.stderr
    assert "README.md" not in pushed.hub.files("me/branched")
    assert {item["config_name"] for item in pushed.card("me/branched", "candidate")[0]["configs"]} == {
        "default",
        "scores",
    }
    assert pushed.load_back("me/branched", "candidate")[0]["train"].num_rows == KEPT_ROWS


@pytest.mark.slow
def test_another_pool_is_refused_and_nothing_is_pushed(pushed: Workplace) -> None:
    other = pushed.folder / "other.parquet"
    pushed.pool.dataset.select(reversed(range(POOL_ROWS))).to_parquet(other)
    before = len(pushed.hub.requests)
    done = pushed.push("--pool.path", str(other), "--hub.repo_id", "me/refused")
    assert done.returncode == 2
    assert "the pool is not the one that was scored" in done.stderr
    assert len(pushed.hub.requests) == before
    assert "me/refused" not in (pushed.run_dir / "config.yaml").read_text()


@pytest.mark.slow
def test_licence_unknown_to_the_hub_is_refused_before_anything_is_pushed(pushed: Workplace) -> None:
    flags = ("--pool.path", str(pushed.pool_path), "--hub.repo_id", "me/unlicensed", "--hub.license", "Apache 2")
    done = pushed.push(*flags)
    assert done.returncode == 2
    assert "hub.license 'Apache 2' is refused by the Hub" in done.stderr
    assert "me/unlicensed" not in pushed.hub.repositories


@pytest.mark.slow
def test_slice_of_a_split_is_pushed_as_train(workplace: Workplace, vlm_path: str) -> None:
    config = DatasetConfig(path=str(workplace.pool_path), split=f"train[:{POOL_ROWS - 2}]")
    run_dir = workplace.folder / "sliced"
    score_and_select(run_dir, load_rows(workplace.pool_path).select(range(POOL_ROWS - 2)), vlm_path)
    flags = ("--pool.path", config.path, "--pool.split", config.split, "--hub.repo_id", "me/sliced")
    done = workplace.push("--run_dir", str(run_dir), *flags)
    assert done.returncode == 0, done.stderr
    kept, _ = workplace.load_back("me/sliced")
    assert {name: rows.num_rows for name, rows in kept.items()} == {"train": KEPT_ROWS}


def with_other(table: ScoreTable, column: str, folder: Path) -> ScoreTable:
    """The same score table with a column's values in another order."""
    scores = table.read()
    turned = scores[column].combine_chunks()[::-1]
    other = ScoreTable(folder)
    other.write_part(scores.set_column(scores.column_names.index(column), column, turned))
    other.write_manifest(**table.manifest())
    return other


def test_selection_of_other_scores_is_refused(workplace: Workplace, tmp_path: Path) -> None:
    table, selection = ScoreTable(workplace.run_dir / "scores"), Selection.read(workplace.run_dir)
    rescored = with_other(table, "utility", tmp_path)
    with pytest.raises(DataError, match="not made of these scores: run the select stage again"):
        push_curated(workplace.pool, rescored, selection, HubConfig("me/refused"))
    unranked = Selection(selection.table.drop_columns("rank"), selection.metadata)
    with pytest.raises(DataError, match="not made of these scores"):
        push_curated(workplace.pool, table, unranked, HubConfig("me/refused"))


@pytest.mark.slow
def test_aggregated_utilities_are_pushed_beside_the_scores_that_they_were_made_of(
    workplace: Workplace, anchor_dataset: datasets.Dataset, vlm_path: str, tmp_path: Path
) -> None:
    topics = ["even" if place % 2 else "odd" for place in range(len(anchor_dataset))]
    anchors = Rows(anchor_dataset.add_column("topic", topics))
    run_dir = workplace.folder / "aggregated"
    proxy = ProxyConfig(model=vlm_path, warmup_fraction=0)
    scoring = ScoringConfig("rds", group_by="topic")
    table = score_pool(ScoringRequest(run_dir, workplace.pool, anchors, proxy, scoring))
    scores = table.read()
    selection = select_rows(scores, SelectionConfig(keep_count=KEPT_ROWS, aggregate="min"))
    assert not selection.table["utility"].equals(scores["utility"])
    selection.write(run_dir)
    flags = ("--pool.path", str(workplace.pool_path), "--hub.repo_id", "me/aggregated")
    done = workplace.push("--run_dir", str(run_dir), *flags)
    assert done.returncode == 0, done.stderr
    kept, pushed_scores = workplace.load_back("me/aggregated")
    records = {record["row"]: record for record in selection.kept.to_pylist()}
    assert kept["train"]["ost_utility"][:] == [records[row]["utility"] for row in sorted(records)]
    assert pushed_scores["train"]["utility"][:] == scores["utility"].to_pylist()
    other = with_other(table, "example_id", tmp_path)
    with pytest.raises(DataError, match="not made of these scores"):
        push_curated(workplace.pool, other, selection, HubConfig("me/refused"))


@pytest.mark.parametrize("kind", ["string", "large_string"])  # the latter from pandas' files
def test_images_named_by_file_are_pushed_as_images(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    rows = datasets.Dataset.from_list([{"question": "what?", "answer": "it", "image": str(tmp_path / "a.png")}])
    pool = Rows(
        rows.cast_column("image", datasets.Value(kind)), DatasetConfig("in memory", allow_paths=[str(tmp_path)])
    )
    assert _with_files(pool.dataset, pool)[0]["image"].size == (8, 8)


def test_rows_without_an_image_are_pushed_beside_rows_with_one(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "pool.jsonl").write_text(
        '{"question": "what?", "answer": "it", "image": "a.png"}\n{"question": "1+1?", "answer": "2", "image": null}\n'
    )
    pool = Rows.load(DatasetConfig(str(tmp_path / "pool.jsonl")))
    placed = _with_files(pool.dataset, pool)
    assert placed[0]["image"].size == (8, 8)
    assert placed[1]["image"] is None


def test_columns_of_an_earlier_selection_are_replaced(workplace: Workplace) -> None:
    pool = workplace.pool
    earlier = pool.dataset.add_column("example_id", [f"row-{row}" for row in range(POOL_ROWS)])
    earlier = earlier.add_column("ost_rank", ["first"] * POOL_ROWS).add_column("ost_utility", [9.0] * POOL_ROWS)
    curated = Rows(earlier, DatasetConfig(path="me/curated-before", id_column="example_id"))
    selection = Selection.read(workplace.run_dir)
    kept = kept_dataset(curated, selection)
    assert kept.to_dict() == kept_dataset(pool, selection).to_dict()
    assert kept.features["ost_rank"] == datasets.Value("int64")
    assert kept["ost_rank"][:] == selection.kept["rank"].to_pylist()


def test_weights_are_pushed_and_those_of_an_earlier_selection_are_not(workplace: Workplace) -> None:
    pool, selection = workplace.pool, Selection.read(workplace.run_dir)
    weighed = Selection(selection.table.append_column("ost_weight", pa.array(np.linspace(0, 1, len(selection)))))
    kept = kept_dataset(pool, weighed)
    assert kept["ost_weight"][:] == weighed.kept["ost_weight"].to_pylist()
    count = len(selection)
    turned = selection.table.append_column("turns", pa.array([2] * count, pa.int32()))
    turned = turned.append_column("masked_turns", pa.array([[]] * count, pa.list_(pa.int32())))
    rows = kept_dataset(pool, Selection(turned))
    assert rows["ost_turns"][:] == [2] * len(rows) and rows["ost_masked_turns"][:] == [[]] * len(rows)
    assert rows.features["ost_masked_turns"] == datasets.List(datasets.Value("int32"))
    earlier = pool.dataset.add_column("ost_weight", [0.5] * POOL_ROWS)
    assert "ost_weight" not in kept_dataset(Rows(earlier, pool.config), selection).column_names


@pytest.mark.slow
def test_a_hub_out_of_reach_or_a_name_that_is_none_is_said_in_a_line(workplace: Workplace) -> None:
    pool = ("--pool.path", str(workplace.pool_path))
    done = workplace.push(*pool, "--hub.repo_id", "me/my pool")
    assert done.returncode == 2
    assert "hub.repo_id 'me/my pool' is no name on the Hub: " in done.stderr
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # nobody listens there
        lost: Any = SimpleNamespace(url=f"http://127.0.0.1:{unheard.getsockname()[1]}")
        # In no process that others are forked from: the command itself.
        command = [sys.executable, "-m", "ost_hf.cli.main", "push", "--run_dir", str(workplace.run_dir)]
        command += [*pool, "--hub.repo_id", "me/lost"]
        environment = Workplace(workplace.folder, lost).environment
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the push to me/lost failed: " in done.stderr
    assert "Is the Hub in reach, and a token that may write?" in done.stderr
