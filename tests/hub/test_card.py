"""The card says what was done, and nothing that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest

from ost_hf.data.rows import Rows
from ost_hf.hub.card import UTILITY_TEXTS, render_card
from ost_hf.proxy.config import ProxyConfig
from ost_hf.scorers.one_step.options import UTILITIES
from ost_hf.scorers.registry import PROXY, SCORERS
from ost_hf.scoring.config import ScoringConfig
from ost_hf.scoring.job import ScoringRequest
from ost_hf.scoring.passes import Part, cost_of_parts
from ost_hf.scoring.runner import score_pool
from ost_hf.scoring.second_stages import SECOND_STAGES
from ost_hf.selection.config import DEFAULT_KEEP_RATIO, SelectionConfig
from ost_hf.selection.kept import Selection
from ost_hf.selection.selector import select_rows
from ost_hf.tables.score_table import ScoreTable
from ost_hf.tables.selection_table import SelectionTable

POOL_ROWS, KEPT_ROWS = 20, 6

Record = dict[str, Any]


@pytest.fixture(scope="module")
def table(pool_dataset: datasets.Dataset, vlm_path: str, tmp_path_factory: pytest.TempPathFactory) -> ScoreTable:
    """Twenty rows with random scores."""
    pool = Rows(pool_dataset.select(range(POOL_ROWS)))
    proxy, scoring = ProxyConfig(vlm_path), ScoringConfig("random")
    return score_pool(ScoringRequest(tmp_path_factory.mktemp("run"), pool, None, proxy, scoring))


def card(
    table: ScoreTable,
    scoring: Record,
    selection: SelectionTable | None = None,
    source: str = "lab/pool",
    cost: Record | None = None,
) -> str:
    """The card of these scores, had they been made with other settings, or cost something else."""
    manifest = table.manifest() | ({} if cost is None else {"cost": cost})
    known = scoring["scorer"] in SCORERS
    manifest["identity"]["scoring"] = ScoringConfig.from_mapping(scoring).identity() if known else scoring
    scores = table.read()
    kept = select_rows(scores, SelectionConfig(keep_count=KEPT_ROWS)) if selection is None else selection
    return render_card("me/curated", scores, kept, manifest, source)


DEITA = {"complexity_model": "lab/c", "quality_model": "lab/q", "embedding_model": "lab/e"}
# The scorer's settings, what its card says, and what it must not say.
SCORER_CARDS: dict[str, tuple[Record, list[str], list[str]]] = {
    "one_step": ({}, ["One-Step-Train", "LoRA rank 8", "| proxy warm-up | 5 % of the pool |", "## Limits"], ["random"]),
    "random": ({"seed": 5}, ["at random, as a baseline", "`random`, seed 5"], ["anchor"]),
    "length": ({}, ["by the scorer `length`", "| tokenizer | of `tiny_qwen3_vl` |"], ["LoRA"]),
    "perplexity": ({}, ["by the scorer `perplexity`", "| proxy warm-up | 5 % of the pool |"], ["anchor"]),
    "ifd": ({}, ["by the scorer `ifd`", "LoRA rank 8"], ["anchor"]),
    "rds": ({}, ["by the scorer `rds`", "`tiny_qwen3_vl`, without an adapter |"], ["LoRA", "warm-up"]),
    "less": ({}, ["| proxy warm-up | epochs: 4, on 5 % of the pool, each with a checkpoint |"], []),
    "judge": (
        {"judge": {"model": "lab/judge", "highest": 5.0}},
        ["rated by a language model, `lab/judge`", "| judge | `lab/judge` |", "| scale | 1 to 5 |"],
        ["LoRA", "tiny_qwen3_vl"],
    ),
    "deita": (
        {"deita": DEITA},
        ["| rater of complexity | `lab/c` |", "| rater of quality | `lab/q` |", "| embedding of a row | `lab/e` |"],
        ["LoRA", "tiny_qwen3_vl"],
    ),
    "column": (
        {"column": {"name": "stars"}},
        ["the number in the pool's own column `stars`"],
        ["LoRA", "tiny_qwen3_vl"],
    ),
}


def test_every_scorer_of_ours_has_a_case() -> None:
    ours = {name for name in SCORERS.names() if SCORERS.find(name).build.__module__.startswith("ost_hf.")}
    assert set(SCORER_CARDS) == ours


@pytest.mark.parametrize("scorer", SCORER_CARDS)
def test_card_describes_the_scorer_that_was_used(table: ScoreTable, scorer: str) -> None:
    settings, present, absent = SCORER_CARDS[scorer]
    text = card(table, {"scorer": scorer, **settings})
    assert f"{KEPT_ROWS} rows of `lab/pool`, selected from a pool of {POOL_ROWS} " in text
    assert all(words in text for words in present), text
    assert not any(words in text for words in absent), text
    assert ("| proxy |" in text) == (PROXY in SCORERS.find(scorer).needs)


def test_of_a_scorer_that_is_not_known_here_no_proxy_is_claimed(table: ScoreTable) -> None:
    text = card(table, {"scorer": "mine", "second_stage": None, "seed": 0})
    assert "by the scorer `mine`" in text
    assert not any(words in text for words in ("anchor", "random", "proxy", "LoRA")), text


@pytest.mark.parametrize("utility", UTILITIES)
def test_each_utility_has_a_text_of_its_own(table: ScoreTable, utility: str) -> None:
    assert set(UTILITY_TEXTS) == set(UTILITIES)
    text = card(table, {"one_step": {"utility": utility}, "scorer": "one_step"})
    assert f"| utility | {UTILITY_TEXTS[utility]} (`{utility}`) |" in text
    assert sum(words in text for words in UTILITY_TEXTS.values()) == 1


def looked_at(scores: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The scores with what a second look and sketches add, half of the rows doubtful; and the anchors' sketches."""
    draw = np.random.default_rng(0)

    def sketches(count: int) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(draw.normal(size=4 * count).astype(np.float32)), 4)

    places = np.arange(len(scores))
    scores = scores.append_column("corrupted_p", pa.array(np.where(places % 2, 0.9, 0.02)))
    scores = scores.append_column("late_loss", pa.array(places / len(scores)))
    scores = scores.append_column("p_value_anchors", pa.array([49] * len(scores)))
    return scores.append_column("sketch", sketches(len(scores))), pa.table({"sketch": sketches(49)})


@pytest.mark.parametrize(
    ("settings", "present"),
    [
        ({"order": "top"}, ["in order `top`: highest utility first.", "| to keep | 6 rows |"]),
        ({"order": "auto"}, ["in order `auto`: 50.0% of the rows have a p-value of at most 0.05", "come first;"]),
        ({"order": "setwise"}, ["in order `setwise`: each row by what it adds to those taken before"]),
        ({"order": "diverse"}, ["at least 0.1 apart in cosine distance."]),
        ({"order": "top", "balance_by": "kind", "balance": "equal"}, ["| balanced by | `kind`, equal |"]),
        ({"order": "top", "length_strata": 2}, ["| groups of like length | 2 |"]),
        ({"keep_count": None, "keep_ratio": 0.3}, ["| order | `auto` |", "| to keep | 30 % of the pool |"]),
        ({"keep_count": None, "min_utility": 0.25}, ["| lowest utility to keep | 0.25 |"]),
        ({"weighted_loss": True}, ["`ost_weight` (how likely the row is clean", "the kept rows have weights from"]),
        ({"drop_toxic": True}, ["| toxic rows | dropped, at a false-discovery rate of 0.05 |"]),
    ],
)
def test_card_says_how_the_selection_was_made(table: ScoreTable, settings: Record, present: list[str]) -> None:
    scores, anchors = looked_at(table.read())
    config = SelectionConfig(**{"keep_count": KEPT_ROWS, **settings})
    balance = [row % 3 for row in range(len(scores))] if config.balance_by else None
    selection = select_rows(scores, config, anchors, balance)
    text = card(table, {"scorer": "one_step", "second_stage": "second_look"}, selection)
    assert all(words in text for words in present), text
    assert f"in order `{config.order}`: {selection.explanation}." in text
    assert "Then every row had a second look" in text
    assert "| second look | rounds: 2, trained: all weights |" in text
    assert ("| to keep |" in text) == (config.min_utility is None)
    assert "second look" not in card(table, {"scorer": "one_step"}, select_rows(scores, SelectionConfig(order="top")))


def test_card_says_that_half_of_the_pool_is_kept_where_nothing_else_is_set(table: ScoreTable) -> None:
    assert DEFAULT_KEEP_RATIO == 0.5
    text = card(table, {"scorer": "one_step"}, select_rows(table.read(), SelectionConfig()))
    assert "10 rows of `lab/pool`" in text
    assert "| to keep | half of the pool |" in text


def test_card_says_which_utility_an_aggregate_made(table: ScoreTable) -> None:
    scores = table.read()
    for name, sign in (("group:a", 1), ("group:b", -1)):
        scores = scores.append_column(name, pa.array(sign * scores["utility"].to_numpy()))
    selection = select_rows(scores, SelectionConfig(keep_count=KEPT_ROWS, order="top", aggregate="min"))
    text = card(table, {"scorer": "one_step", "group_by": "topic"}, selection)
    assert "The utilities for the groups of anchors became one by `min`: the `ost_utility`" in text
    assert "| aggregate | `min` over groups |" in text


def test_of_a_selection_made_elsewhere_only_the_rows_are_told(table: ScoreTable) -> None:
    selection = select_rows(table.read(), SelectionConfig(keep_count=KEPT_ROWS))
    text = card(table, {"scorer": "one_step"}, Selection(selection.table))
    assert "in order" not in text and "| order |" not in text and "| to keep |" not in text
    assert f"{KEPT_ROWS} rows of `lab/pool`" in text


def test_card_says_what_the_scores_cost_where_the_proxy_made_passes(table: ScoreTable) -> None:
    cost = cost_of_parts({"warm_up": Part(6, 1.0, 1, 3), "first": Part(40, 2.0), "other": Part(0, 1.0)}, POOL_ROWS)
    line = (
        "| cost of the scores | 2.3 forward passes of the proxy over the pool and 4.0 s: warm-up 0.3 (3 steps), first "
    )
    assert f"{line}look 2 |" in card(table, {"scorer": "one_step"}, cost=cost)
    assert "cost of the scores" not in card(table, {"scorer": "random"})
    assert "cost of the scores" not in card(
        table, {"scorer": "length"}, cost=cost_of_parts({"scoring": Part(None, 9.0)}, 20)
    )


def test_card_shows_no_local_folder(table: ScoreTable, vlm_path: str, tmp_path: Path) -> None:
    text = card(table, {"scorer": "one_step"}, source=str(tmp_path / "pool.parquet"))
    assert "`pool.parquet`" in text and f"`{Path(vlm_path).name}`" in text
    assert str(tmp_path) not in text and vlm_path not in text
    assert vlm_path not in card(table, {"scorer": "judge", "judge": {"model": vlm_path}})


def test_every_second_stage_is_named(table: ScoreTable) -> None:
    cascade = {"scorer": "one_step", "one_step": {"utility": "raw"}, "cascade": {"keep_ratio": 0.5}}
    for stage in SECOND_STAGES.names():
        text = card(
            table,
            {**cascade, "second_stage": stage} if stage == "cascade" else {"scorer": "one_step", "second_stage": stage},
        )
        words = "second look" if stage == "second_look" else f"second stage | `{stage}` |"
        assert f"| {words}" in text, text
    assert "second stage" not in card(table, {"scorer": "one_step"})
