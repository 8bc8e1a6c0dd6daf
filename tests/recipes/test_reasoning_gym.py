"""The rows of the text study: problems of reasoning-gym in words of our own, right by its own scorer."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import pytest
import reasoning_gym

from ost_hf.evaluation.answers import extract_answer

RECIPE = Path(__file__).parents[2] / "recipes" / "reasoning_gym"
WRONG_ANSWERS = ("wrong_result", "slip", "wrong_bare_answer", "other_answer")


@pytest.fixture(scope="module")
def gym() -> ModuleType:
    """The recipe's ``task.py``, under a name of its own beside the handwritten one's."""
    spec = importlib.util.spec_from_file_location("reasoning_gym_task", RECIPE / "task.py")
    module = importlib.util.module_from_spec(spec)
    # Data classes look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def score(gym: ModuleType, problem: Any, answer: str) -> float:
    """What reasoning-gym gives for an answer; it wants a sorted list as a list of words."""
    found = extract_answer(answer)
    if problem.task == "number_sorting":
        found = str(found.split())
    scorer = reasoning_gym.create_dataset(problem.task, seed=0, size=1, **gym.TASKS[problem.task].ranges)
    return scorer.score_answer(found, problem.entry)


def test_clean_rows_are_right_by_reasoning_gyms_own_scorer(gym: ModuleType) -> None:
    problems, rows = gym.problems(120, "test", 4), gym.clean_rows(120, "test", 4)
    assert {row["task"] for row in rows} == set(gym.TASKS)
    for problem, row in zip(problems, rows, strict=True):
        assert (row["question"], row["kind"], row["is_clean"]) == (problem.question, "clean", 1)
        assert row["solution"] == extract_answer(row["answer"])
        assert score(gym, problem, row["answer"]) == 1.0


def test_corrupted_rows_are_wrong_in_their_way(gym: ModuleType) -> None:
    problems, rows = gym.problems(400, "pool", 8), gym.pool_rows(400, 7)
    clean = gym.clean_rows(400, "pool", 8)
    kinds = Counter(row["kind"] for row in rows)
    assert kinds["clean"] / 400 == pytest.approx(0.5, abs=0.08)
    assert set(kinds) == {"clean", *gym.CORRUPTIONS}
    for problem, row, right in zip(problems, rows, clean, strict=True):
        assert row["is_clean"] == (row["kind"] == "clean")
        assert {**row, "answer": "", "kind": "", "is_clean": 0} == {**right, "answer": "", "kind": "", "is_clean": 0}
        assert (row["answer"] == right["answer"]) == (row["kind"] == "clean")
        if row["kind"] in WRONG_ANSWERS:
            assert extract_answer(row["answer"]) != row["solution"]
            # A backward word with some letters in place is given a part of the point.
            assert score(gym, problem, row["answer"]) < 1.0
        if row["kind"] == "wrong_bare_answer":
            assert row["answer"].startswith("answer: ")
        if row["kind"] == "other_answer":
            others = {other["answer"] for other in clean if other["task"] == row["task"]}
            assert row["answer"] in others


def test_problems_are_disjoint_between_all_parts(gym: ModuleType) -> None:
    questions = {part: [row["question"] for row in gym.clean_rows(150, part, 5)] for part in gym.SHARES}
    for part, asked in questions.items():
        assert {gym.part_of(question) for question in asked} == {part}
        assert len(set(asked)) == len(asked)
    assert len(set.union(*map(set, questions.values()))) == sum(map(len, questions.values()))


def test_the_same_numbers_in_another_order_are_in_the_same_part(gym: ModuleType) -> None:
    for a, b in ((12, 34), (15, 48), (21, 56), (33, 60)):
        question = gym.TASKS["gcd"].question
        assert gym.part_of(question.format(a, b)) == gym.part_of(question.format(b, a))


def test_rows_are_a_function_of_the_seed(gym: ModuleType) -> None:
    assert gym.pool_rows(50, 7) == gym.pool_rows(50, 7)
    assert gym.pool_rows(50, 7) != gym.pool_rows(50, 8)
    first, second = ({row["question"] for row in gym.clean_rows(50, "pool", seed)} for seed in (7, 8))
    assert len(first & second) < 10


def test_what_cannot_be_made_is_refused(gym: ModuleType) -> None:
    with pytest.raises(ValueError, match="pretraining, test, pool, anchors, development"):
        gym.clean_rows(1, "train", 0)
    with pytest.raises(ValueError, match="ask for fewer rows"):
        gym.clean_rows(500, "anchors", 0, ["gcd"])


@pytest.mark.slow
def test_study_data_and_a_base_are_written(tmp_path: Path) -> None:
    sizes = ("--pool_rows", "60", "--anchor_rows", "8", "--test_rows", "20")
    run(RECIPE / "study_data.py", "--output", tmp_path, "--seed", "3", "--noise", "0.4", *sizes)
    for name, count in (("pool", 60), ("anchors", 8), ("test", 20)):
        made = datasets.Dataset.from_parquet(str(tmp_path / f"{name}.parquet"), cache_dir=str(tmp_path / "cache"))
        assert made.num_rows == count
        fit = ["is_fit"] if name == "pool" else []
        assert made.column_names == ["question", "answer", "solution", "task", "kind", "is_clean", *fit]
        assert made.features["is_clean"].dtype == "int32"
        assert (set(made["kind"]) == {"clean"}) == (name != "pool")
    run(RECIPE / "study_data.py", "--output", tmp_path / "aimed", "--seed", "3", "--target", "chain_sum", *sizes)
    pool, anchors = (
        datasets.Dataset.from_parquet(str(tmp_path / "aimed" / f"{name}.parquet")) for name in ("pool", "anchors")
    )
    assert set(anchors["task"]) == {"chain_sum"} != set(pool["task"])
    assert pool["is_fit"] == [int(row["is_clean"] and row["task"] == "chain_sum") for row in pool]
    run(RECIPE / "make_tiny_qwen3.py", "--output", tmp_path / "base", "--steps", "1", "--rows", "40")
    assert (tmp_path / "base" / "model.safetensors").stat().st_size < 3_000_000


def run(*words: Any) -> None:
    result = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert result.returncode == 0, result.stderr[-5000:]
