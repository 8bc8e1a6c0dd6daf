"""What is said of each turn of a row, on a tiny chat model and a conversation with a wrong turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest

from ost_hf.data.rows import Rows
from ost_hf.evidence.conformal import conformal_p, small_up_to
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.runner import score_pool
from ost_hf.selection.config import SelectionConfig
from ost_hf.selection.selector import select_rows

COUNT, SINGLE, WRONG = 30, 24, (3, 9, 15)
LISTS = ("turn_losses", "turn_utilities", "turn_late_losses", "turn_corrupted_p")


def chat(number: int, turns: int, wrong: int | None = None) -> dict[str, Any]:
    messages = []
    for turn in range(turns):
        answer = "zebra blue %% house" if turn == wrong else f"it is {(number + turn) % 7}"
        messages.append({"role": "user", "content": f"say {(number + turn) % 7} for {number}"})
        messages.append({"role": "assistant", "content": answer})
    return {"messages": messages}


def pool() -> datasets.Dataset:
    """Conversations of three turns, some with a wrong second turn; the last six are of one turn."""
    rows = [chat(n, 3 if n < SINGLE else 1, 1 if n in WRONG else None) for n in range(COUNT)]
    return datasets.Dataset.from_list(rows)


def request(folder: Path, text_path: str, **settings: Any) -> ScoringRequest:
    anchors = datasets.Dataset.from_list([chat(100 + n, 3) for n in range(10)])
    proxy = ProxyConfig(text_path, lora_r=2, warmup_min_steps=2, warmup_batch_size=4)
    return ScoringRequest(folder, Rows(pool()), Rows(anchors), proxy, ScoringConfig(per_turn=True, **settings))


@pytest.fixture(scope="module")
def table(text_path: str, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Scores after a second look."""
    look = {"min_steps": 60, "batch_size": 8, "learning_rate": 5e-3, "rounds": 2}
    folder = tmp_path_factory.mktemp("turns")
    given = request(folder, text_path, second_stage="second_look", sections={"second_look": look})
    scores = score_pool(given).read()
    # A run that ends here finds nothing to do, and one that lost a part makes it again.
    part = next((folder / "scores").glob("part-*.parquet"))
    part.unlink()
    assert score_pool(given).read().equals(scores)
    assert set(LISTS) <= (given.scoring.columns or set())
    return scores


def test_every_turn_has_numbers(table: pa.Table) -> None:
    for name in LISTS:
        assert [len(each) for each in table[name].to_pylist()] == [3] * SINGLE + [1] * (COUNT - SINGLE)
    assert set(table["turn_p_value_anchors"].to_pylist()) == {30}


def test_row_of_one_turn_has_lists_that_agree_with_its_own_columns(table: pa.Table) -> None:
    single = table.slice(SINGLE)
    for name, of_row in (("turn_losses", "loss"), ("turn_utilities", "utility"), ("turn_late_losses", "late_loss")):
        assert [each[0] for each in single[name].to_pylist()] == pytest.approx(single[of_row].to_pylist(), rel=1e-6)


def test_wrong_turn_is_found_and_the_turns_beside_it_are_not(table: pa.Table) -> None:
    p = np.array(table["turn_corrupted_p"].to_pylist()[:SINGLE])
    small = p <= small_up_to(30)
    assert small[list(WRONG), 1].all()
    others = np.ones(p.shape, bool)
    others[list(WRONG), 1] = False
    assert small[others].mean() < 0.15
    late = np.array(table["turn_late_losses"].to_pylist()[:SINGLE])
    assert late[list(WRONG), 1].min() > late[others].max()


def test_selection_keeps_the_rows_and_masks_the_wrong_turns(table: pa.Table) -> None:
    selection = select_rows(table, SelectionConfig(keep_ratio=1.0, mask_turns=True)).table.to_pylist()
    assert all(selection[row]["kept"] and 1 in selection[row]["masked_turns"] for row in WRONG)
    assert all(row["turns"] == (3 if row["row"] < SINGLE else 1) for row in selection)


def test_p_values_are_those_against_the_anchors_turns(table: pa.Table) -> None:
    """Of one judge a higher late loss never has a higher p-value; 1 / 31 is the smallest there is."""
    p = np.concatenate(table["turn_corrupted_p"].to_pylist())
    assert np.allclose(p * 31, np.rint(p * 31), atol=1e-4)
    assert p.min() >= np.float32(1 / 31)
    assert conformal_p([9.0], np.zeros(30))[0] == pytest.approx(p.min(), rel=1e-6)


@pytest.mark.parametrize("estimator", ["reverse", "forward", "exact"])
def test_turns_add_up_to_their_row(text_path: str, tmp_path: Path, estimator: str) -> None:
    """A row's loss is a mean over its tokens, and to first order its utility is the same mean of its turns'."""
    sections = {"one_step": {"estimator": estimator, "utility": "raw", "update_rule": "sgd", "learning_rate": 1e-3}}
    table = score_pool(request(tmp_path, text_path, sections=sections)).read()
    tokens = turn_tokens(text_path)
    for name, of_row in (("turn_losses", "loss"), ("turn_utilities", "utility")):
        means = [np.dot(v, t) / sum(t) for v, t in zip(table[name].to_pylist(), tokens, strict=True)]
        spread = np.std(table[of_row].to_numpy())
        assert np.abs(means - table[of_row].to_numpy()).max() < (0.02 if name == "turn_utilities" else 1e-4) * spread


def turn_tokens(text_path: str) -> list[list[int]]:
    """How many supervised tokens each turn has."""
    from ost_hf.data.encoding import Encoder
    from ost_hf.data.encoding.dataset import EncodedDataset
    from ost_hf.functional.turns import split_turns
    from ost_hf.models import ModelConfig, load_processing_class

    encoded = EncodedDataset(Rows(pool()), Encoder(load_processing_class(ModelConfig(text_path))))
    rows = [encoded[row]["labels"] for row in range(COUNT)]
    return [[int((labels[1:] != -100).sum()) for labels in split_turns(row)] for row in rows]
