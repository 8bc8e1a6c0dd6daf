"""A scored run, asked again: how many proxies judge, what is said of turns, what it costs."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from ost_hf.data.rows import Rows
from ost_hf.errors import ConfigError
from ost_hf.evidence.conformal import conformal_p
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.loop import run_scorer
from ost_hf.scoring.passes import cost_in_words
from ost_hf.scoring.runner import score_pool
from ost_hf.scoring.second_look.options import SecondLookOptions
from ost_hf.tables.score_table import ScoreTable

STORED, LARGER, ANCHORS = 30, 40, 10
# 11 steps of 6 rows: one proxy would see each of 30 rows more than twice, but not each of 40.
LOOK = SecondLookOptions(min_steps=3, batch_size=6, epochs=0.1, max_steps=11, learning_rate=1e-3)
CONFIG = ScoringConfig(second_stage="second_look", sections={"second_look": LOOK}, store=True, part_size=8)
OF_TURNS = ("turn_losses", "turn_utilities", "turn_late_losses", "turn_corrupted_p", "turn_p_value_anchors")


def chats(numbers: range) -> datasets.Dataset:
    """Conversations of one, two or three turns."""
    rows = []
    for number in numbers:
        messages = []
        for turn in range(1 + number % 3):
            messages.append({"role": "user", "content": f"say {(number + turn) % 7} for {number}"})
            messages.append({"role": "assistant", "content": f"it is {(number + turn) % 7}"})
        rows.append({"messages": messages})
    return datasets.Dataset.from_list(rows)


@pytest.fixture(scope="module")
def request_for(text_path: str):
    """Asks for scores of some conversations."""
    proxy = ProxyConfig(text_path, lora_r=2, warmup_min_steps=2, warmup_batch_size=4)

    def make(folder: Path, rows: int = STORED, config: ScoringConfig = CONFIG, **changes: Any) -> ScoringRequest:
        anchors = changes.pop("anchors", range(300, 300 + ANCHORS))
        request = ScoringRequest(folder, Rows(chats(range(rows))), Rows(chats(anchors)), proxy, config)
        return replace(request, **changes)

    return make


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, request_for) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    score_pool(request_for(folder))
    return folder


@pytest.fixture(scope="module")
def stored_turns(tmp_path_factory: pytest.TempPathFactory, request_for) -> Path:
    folder = tmp_path_factory.mktemp("stored-turns")
    score_pool(request_for(folder, config=replace(CONFIG, per_turn=True)))
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """The rows that any model is asked about, by the folder of the table that they go into."""
    found: dict[str, list[int]] = {}

    def noting(scorer, job, rows, table=None):
        found.setdefault((table or job.table).folder.name, []).extend(rows)
        return run_scorer(scorer, job, rows, table)

    for module in ("anchor_scores", "reuse", "second_look.rounds"):
        monkeypatch.setattr(f"ost_hf.scoring.{module}.run_scorer", noting)
    return found


def passes_of(table: ScoreTable) -> dict[str, float]:
    """Row passes of each part that has some; what is tried for its memory depends on the device."""
    parts = table.manifest()["cost"]["parts"]
    return {name: part["row_passes"] for name, part in parts.items() if part["row_passes"] and name != "trial_batches"}


def test_a_stored_run_keeps_what_its_last_round_asked(stored: Path) -> None:
    kept = sorted(path.parent.relative_to(stored / "scores" / "second_look") for path in stored.rglob("finished"))
    assert [str(path) for path in kept] == ["round-2/proxy-0", "round-2/proxy-1"]


def test_a_pool_that_has_grown_is_judged_by_as_many_proxies_and_by_the_last_round_alone(
    stored: Path, tmp_path: Path, request_for, asked: dict[str, list[int]]
) -> None:
    assert [LOOK.of_pool(rows).cross_fit for rows in (STORED, LARGER)] == [True, False]
    there = tmp_path / "there"
    again = score_pool(request_for(there, LARGER, reuse=stored))
    new = list(range(STORED, LARGER))
    assert {name: sorted(rows) for name, rows in asked.items()} == {"first": new, "round-2": new}
    before, after = (ScoreTable(folder / "scores").manifest()["second_look"] for folder in (stored, there))
    assert (after["proxies"], after["anchor_losses"]) == (2, before["anchor_losses"])
    late = [table.read()["late_loss"].to_pylist() for table in (ScoreTable(stored / "scores"), again)]
    assert late[1][:STORED] == late[0]
    assert None not in late[1]
    # And what was made so says the same to whoever asks it.
    asked.clear()
    third = score_pool(request_for(tmp_path / "third", LARGER, reuse=there))
    assert third.read().to_pylist() == again.read().to_pylist()
    assert asked == {}


@pytest.mark.slow
def test_one_proxy_judges_fewer_rows_and_more_with_a_like_share_held_out(tmp_path: Path, request_for) -> None:
    before = score_pool(request_for(tmp_path / "stored", LARGER))
    fewer, more = (
        score_pool(request_for(tmp_path / str(rows), rows, reuse=tmp_path / "stored")) for rows in (STORED, 200)
    )
    held_out = [table.read()["held_out"].to_pylist() for table in (before, fewer, more)]
    assert held_out[1] == held_out[0][:STORED]
    assert held_out[2][:LARGER] == held_out[0]
    assert sum(held_out[0]) == 10
    assert 0.1 < np.mean(held_out[2][LARGER:]) < 0.5
    for table in (fewer, more):
        assert table.manifest()["second_look"]["proxies"] == 1
        assert table.read()["corrupted_p"].null_count == 0
    # The same rows again, and so on.
    third = score_pool(request_for(tmp_path / "third", 200, reuse=tmp_path / str(STORED)))
    assert third.read()["held_out"].to_pylist() == held_out[2]


def test_added_rows_have_what_is_said_of_turns(
    stored_turns: Path, tmp_path: Path, request_for, asked: dict[str, list[int]]
) -> None:
    again = score_pool(request_for(tmp_path, LARGER, config=replace(CONFIG, per_turn=True), reuse=stored_turns))
    assert sorted(asked["round-2"]) == sorted(asked["first"]) == list(range(STORED, LARGER))
    table, before = again.read(), ScoreTable(stored_turns / "scores").read()
    for name in OF_TURNS:
        assert table.slice(0, STORED)[name].to_pylist() == before[name].to_pylist()
    for name in OF_TURNS[:4]:
        assert [len(each) for each in table[name].to_pylist()] == [1 + row % 3 for row in range(LARGER)]
    # Of one turn, a row's lists agree with its own columns; p-values are against the turns of the anchors.
    row = table.slice(36, 1).to_pylist()[0]
    assert (row["turn_losses"], row["turn_late_losses"]) == (
        pytest.approx([row["loss"]], rel=1e-6),
        pytest.approx([row["late_loss"]], rel=1e-6),
    )
    turns = sum(1 + number % 3 for number in range(300, 300 + ANCHORS))
    assert set(table["turn_p_value_anchors"].to_pylist()) == {turns}
    smallest = conformal_p([9e9], np.zeros(turns))[0]
    p_values = np.concatenate(table["turn_corrupted_p"].to_pylist()) / smallest
    assert np.allclose(p_values, np.rint(p_values), atol=1e-3)


def test_turns_are_refused_for_new_anchors(stored_turns: Path, tmp_path: Path, request_for) -> None:
    config = replace(CONFIG, per_turn=True)
    with pytest.raises(ConfigError, match=r"reuse: scoring\.per_turn cannot be had against new anchors"):
        score_pool(request_for(tmp_path / "again", config=config, anchors=range(400, 408), reuse=stored_turns))
    assert not (tmp_path / "again").exists()


@pytest.mark.slow
def test_a_run_counts_what_it_does_itself(
    stored: Path, tmp_path: Path, request_for, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the warm-up nor the trainings of proxies that were taken over."""
    with caplog.at_level(logging.INFO, "ost_hf"):
        same, larger, other, both = (
            score_pool(request_for(tmp_path / name, rows, reuse=stored, **changes))
            for name, rows, changes in (
                ("same", STORED, {}),
                ("larger", LARGER, {}),
                ("other", STORED, {"anchors": range(400, 408)}),
                ("both", LARGER, {"anchors": range(400, 408)}),
            )
        )
    added = LARGER - STORED
    assert passes_of(same) == {}
    assert passes_of(larger) == {"set_up": 2 * ANCHORS, "first": 2 * added, "second_look_asking": added}
    # New anchors are scored like rows, and judged by two proxies; thirty rows are scored to compare.
    of_anchors = {"set_up": 2 * 8, "anchors": (2 + 2) * 8, "agreement": 2 * STORED}
    assert passes_of(other) == of_anchors
    assert passes_of(both) == of_anchors | {"first": 2 * added, "second_look_asking": added}
    for table in (same, larger, other, both):
        cost = table.manifest()["cost"]
        assert (cost["trainings"], cost["steps"]) == (0, 0)
        assert cost_in_words(cost) in caplog.messages
    assert cost_in_words(same.manifest()["cost"]).startswith("selection cost no forward pass of the proxy and ")
    words = cost_in_words(both.manifest()["cost"])
    assert all(part in words for part in ("anchors 0.8", "agreement with full scores 1.5", "first look 0.5"))


def test_without_a_second_stage_added_rows_count_as_scoring(tmp_path: Path, request_for) -> None:
    config = replace(CONFIG, second_stage=None)
    score_pool(request_for(tmp_path / "stored", config=config))
    again = score_pool(request_for(tmp_path / "again", LARGER, config=config, reuse=tmp_path / "stored"))
    assert passes_of(again) == {"set_up": 2 * ANCHORS, "scoring": 2 * (LARGER - STORED)}
