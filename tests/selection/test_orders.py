"""Orders, strata, aggregation and verdicts through ``select_rows``."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ost_hf.errors import ConfigError, DataError
from ost_hf.evidence.conformal import conformal_p
from ost_hf.evidence.contamination import contamination_evidence
from ost_hf.scoring.second_look.kinds import with_other_kind_p
from ost_hf.selection.auto import drawn, hardness, log_odds
from ost_hf.selection.config import ORDERS, SelectionConfig
from ost_hf.selection.kept import Selection
from ost_hf.selection.orders import ORDER_FUNCTIONS
from ost_hf.selection.selector import select_rows
from ost_hf.selection.setwise import greedy
from ost_hf.selection.strata import rooms, strata_of

COUNT, ANCHORS = 200, 50


def scores(anchors: int = ANCHORS, **columns: object) -> pa.Table:
    """A score table of random utilities with further columns; p-values are said to be made with so many anchors."""
    generator = np.random.default_rng(0)
    table = {
        "example_id": [f"id{row:03d}" for row in range(COUNT)],
        "row": list(range(COUNT)),
        "utility": generator.normal(size=COUNT).tolist(),
        "loss": generator.random(COUNT).tolist(),
        "tokens": (np.arange(COUNT) % 40 + 1).tolist(),
        "status": ["ok"] * COUNT,
    }
    said = {"p_value_anchors": [anchors] * COUNT} if "corrupted_p" in columns else {}
    return pa.table({**table, **columns, **said})


def second_look(corrupted: np.ndarray) -> dict[str, list[float]]:
    """Late losses like those of a second look: clean rows as the anchors, corrupted ones far above."""
    generator = np.random.default_rng(1)
    anchor = generator.random(ANCHORS)
    late = np.where(corrupted, 2 + generator.random(COUNT), generator.random(COUNT))
    p = (1 + (anchor[None] >= late[:, None]).sum(1)) / (1 + ANCHORS)
    return {"late_loss": late.tolist(), "corrupted_p": p.tolist()}


def kept_rows(selection: Selection) -> np.ndarray:
    return np.flatnonzero(selection.table["kept"].to_numpy())


def test_auto_is_top_without_a_second_look() -> None:
    top = select_rows(scores(), SelectionConfig(order="top"))
    auto = select_rows(scores())
    assert auto.table == top.table
    assert "there was no second look" in auto.explanation


def test_auto_keeps_clean_rows_first() -> None:
    corrupted = np.arange(COUNT) < COUNT // 2
    table = select_rows(scores(**second_look(corrupted)))
    assert kept_rows(table).size == COUNT // 2
    assert corrupted[kept_rows(table)].mean() == 0
    assert "as clean as the anchors" in table.explanation


def test_auto_says_whether_its_draw_decided_anything() -> None:
    """With room for all rows that look clean, none among them is drawn."""
    table = scores(**second_look(np.arange(COUNT) < COUNT // 2))
    assert "all of them are kept; " in select_rows(table).explanation
    few = select_rows(table, SelectionConfig(keep_count=20)).explanation
    assert "drawn from these, the likelier the higher" in few
    assert "all of them" not in few


def test_auto_draws_hard_rows_more_often_and_only_clean_ones() -> None:
    corrupted = np.arange(COUNT) < COUNT // 2
    columns = second_look(corrupted)
    table, late = scores(**columns), np.asarray(columns["late_loss"])
    as_clean = np.flatnonzero(np.asarray(columns["corrupted_p"]) > 0.2)
    draws = [kept_rows(select_rows(table, SelectionConfig(keep_count=20, seed=seed))) for seed in range(20)]
    assert all(set(kept) <= set(as_clean) for kept in draws)
    assert len({tuple(kept) for kept in draws}) == 20
    assert np.mean([late[kept].mean() for kept in draws]) > late[as_clean].mean() + 0.1
    hardest = as_clean[np.argsort(-late[as_clean])][:20]
    assert all(set(kept) != set(hardest) for kept in draws)


def test_a_draw_goes_by_exp_z() -> None:
    loss = np.array([0.0, 1.0, 2.0])
    weight = np.exp((loss - loss.mean()) / loss.std())
    first = [drawn(hardness(loss), seed)[0] for seed in range(4000)]
    assert np.bincount(first) / 4000 == pytest.approx(weight / weight.sum(), abs=0.03)
    assert sorted(drawn(hardness(loss), 0)) == [0, 1, 2]
    equal = [drawn(hardness(np.ones(3)), seed)[0] for seed in range(4000)]
    assert np.bincount(equal) / 4000 == pytest.approx(np.full(3, 1 / 3), abs=0.03)
    assert drawn(hardness(np.empty(0)), 0).tolist() == []


def test_what_could_not_have_been_found_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    select_rows(scores(**second_look(np.zeros(COUNT, dtype=bool))))
    assert "with 50 anchors, about" in caplog.text
    caplog.clear()
    select_rows(scores(**second_look(np.arange(COUNT) < COUNT // 2)))
    assert "without showing" not in caplog.text
    select_rows(scores(anchors=1, late_loss=np.ones(COUNT), corrupted_p=np.ones(COUNT)))
    assert "with so few anchors (1) or rows, nothing can show" in caplog.text


def test_auto_finds_no_corruption_in_a_clean_pool_and_favours_hard_rows() -> None:
    columns = second_look(np.zeros(COUNT, dtype=bool))
    table = select_rows(scores(**columns))
    assert "no corruption was found" in table.explanation
    assert "(p > 0.05) come first; drawn from these" in table.explanation
    kept = kept_rows(table)
    assert kept.size == COUNT // 2
    late, p = (np.asarray(columns[name]) for name in ("late_loss", "corrupted_p"))
    likely = np.flatnonzero(p > 0.05)
    assert set(kept) <= set(likely)
    assert late[kept].mean() > late[likely].mean() + 0.02


def test_a_draw_leans_less_to_hard_rows_where_a_judge_may_have_learnt_from_them() -> None:
    columns = second_look(np.arange(COUNT) < COUNT // 5)
    late = np.asarray(columns["late_loss"])
    means = []
    for held_out in (np.ones(COUNT, dtype=bool), np.arange(COUNT) % 3 == 0):
        table = scores(**columns, held_out=held_out.tolist())
        selections = [select_rows(table, SelectionConfig(keep_ratio=0.3, seed=seed)) for seed in range(20)]
        assert all("the likelier the higher a row's late loss" in one.explanation for one in selections)
        means.append(np.mean([late[kept_rows(one)].mean() for one in selections]))
    everything = late[np.asarray(columns["corrupted_p"]) > 0.2].mean()
    assert means[0] - everything > 1.5 * (means[1] - everything) > 0


def a_little_harder(share: float, by: float) -> tuple[np.ndarray, dict[str, list[float]]]:
    """Which of the rows are corrupted, and normal late losses, with those of corrupted rows higher by so much."""
    generator = np.random.default_rng(3)
    corrupted = np.arange(COUNT) < share * COUNT
    anchor, late = generator.normal(size=ANCHORS), generator.normal(size=COUNT) + by * corrupted
    p = (1 + (anchor[None] >= late[:, None]).sum(1)) / (1 + ANCHORS)
    return corrupted, {"late_loss": np.exp(late).tolist(), "corrupted_p": p.tolist()}


def test_a_pool_between_chance_and_found_is_drawn_by_how_clean_rows_look() -> None:
    corrupted, columns = a_little_harder(share=0.3, by=1.0)
    pool_p = np.asarray(columns["corrupted_p"])
    found = contamination_evidence(pool_p, ANCHORS)
    assert 1.5 < found.deviations < 3, "a pool of the kind that is meant"
    table = scores(**columns)
    selections = [select_rows(table, SelectionConfig(seed=seed)) for seed in range(20)]
    dropped = np.mean(
        [1 - kept_rows(one).size * corrupted[kept_rows(one)].mean() / corrupted.sum() for one in selections]
    )
    best = np.argsort(-pool_p, kind="stable")[COUNT // 2 :]
    # Nearly as many as a ranking by cleanness drops, where a draw that leans to hard rows keeps them.
    assert dropped > np.isin(np.flatnonzero(corrupted), best).mean() - 0.08 > 0.6
    assert f"{found.deviations:.1f} standard deviations from what chance gives" in selections[0].explanation
    assert len({tuple(kept_rows(one)) for one in selections}) == 20


def test_likeliest_ranks_by_cleanness_without_a_draw() -> None:
    _, columns = a_little_harder(share=0.3, by=1.0)
    table = scores(**columns)
    one, other = (select_rows(table, SelectionConfig(order="likeliest", seed=seed)) for seed in (0, 1))
    assert one.table == other.table
    p = np.asarray(columns["corrupted_p"])
    assert p[kept_rows(one)].min() >= np.delete(p, kept_rows(one)).max()
    # The first row alone had a second look, and it has no utility to be kept by.
    nobody = scores(late_loss=[1.0, *[None] * (COUNT - 1)], corrupted_p=[0.5, *[None] * (COUNT - 1)])
    utility = pa.array([None, *nobody["utility"].to_pylist()[1:]], pa.float64())
    nobody = nobody.set_column(nobody.column_names.index("utility"), "utility", utility)
    with pytest.raises(DataError, match="goes by p-values of a second look"):
        select_rows(nobody, SelectionConfig(order="likeliest"))


def test_log_odds_take_a_p_value_for_the_middle_of_its_step() -> None:
    assert log_odds(np.array([0.25, 0.5, 0.75, 1.0]), 0.25) == pytest.approx(np.log([1 / 7, 3 / 5, 5 / 3, 7]))


@pytest.mark.parametrize("count", [1, 3, 6, 20, 60])
def test_a_draw_of_hard_rows_takes_no_corrupted_ones_however_few_they_are(count: int) -> None:
    corrupted = np.arange(COUNT) < count
    table = select_rows(scores(**second_look(corrupted)))
    assert ("no corruption was found" in table.explanation) == (count <= 20)
    assert corrupted[kept_rows(table)].sum() == 0


def harder_than_anchors(by: np.ndarray | float) -> dict[str, list[float]]:
    """Normal late losses, of rows and of 200 anchors, those of rows higher."""
    generator = np.random.default_rng(4)
    late = generator.normal(5, 1, COUNT) + by
    return {"late_loss": late.tolist(), "corrupted_p": conformal_p(late, generator.normal(5, 1, 200)).tolist()}


def test_where_corruption_is_hardly_told_apart_the_hardest_are_not_sought() -> None:
    """The hardest of what looks clean are the corrupted rows that slipped through."""
    corrupted = np.arange(COUNT) < COUNT // 2
    columns = harder_than_anchors(corrupted)
    table, late = scores(anchors=200, **columns), np.asarray(columns["late_loss"])
    like_clean = np.flatnonzero(np.asarray(columns["corrupted_p"]) > 0.2)
    tables = [select_rows(table, SelectionConfig(keep_ratio=0.2, seed=seed)) for seed in range(30)]
    assert all("of what is corrupted was told apart" in each.explanation for each in tables)
    kept = [kept_rows(each) for each in tables]
    assert all(set(each) <= set(like_clean) for each in kept)
    assert len({tuple(each) for each in kept}) == 30
    hard = [like_clean[drawn(hardness(late[like_clean]), seed)[: COUNT // 5]] for seed in range(30)]
    share, of_hard = (np.mean([corrupted[each].mean() for each in these]) for these in (kept, hard))
    assert share == pytest.approx(corrupted[like_clean].mean(), abs=0.03)
    assert share < of_hard - 0.05


def test_in_a_clean_pool_that_is_a_little_harder_than_the_anchors_easy_rows_are_not_sought_either() -> None:
    """P-values cannot tell it from corruption: half of it must not be the easy half, which teaches little."""
    columns = harder_than_anchors(0.4)
    table, late = scores(anchors=200, **columns), np.asarray(columns["late_loss"])
    like_clean = np.flatnonzero(np.asarray(columns["corrupted_p"]) > 0.2)
    tables = [select_rows(table, SelectionConfig(keep_ratio=0.2, seed=seed)) for seed in range(30)]
    assert all("of what is corrupted was told apart" in each.explanation for each in tables)
    kept = np.mean([late[kept_rows(each)].mean() for each in tables])
    assert kept == pytest.approx(late[like_clean].mean(), abs=0.05)


def test_rows_without_a_second_look_come_last_and_the_others_keep_theirs() -> None:
    corrupted = np.arange(COUNT) < COUNT // 2
    columns = second_look(corrupted)
    for column in columns.values():
        column[150] = None
    table = select_rows(scores(**columns))
    kept = kept_rows(table)
    assert 150 not in kept
    assert corrupted[kept].sum() == 1
    assert table.table["rank"].to_pylist()[150] == COUNT
    assert "1 rows had no second look" in table.explanation


def test_dropping_toxic_rows_does_not_hide_corruption() -> None:
    corrupted = np.arange(COUNT) < COUNT // 2
    table = select_rows(scores(**second_look(corrupted)), SelectionConfig(drop_toxic=True))
    assert "part of it looks corrupted" in table.explanation
    assert "(p > 0.2)" in table.explanation
    assert corrupted[kept_rows(table)].sum() == 0


def test_of_rows_of_one_p_value_those_of_lowest_loss_fill_the_quota() -> None:
    corrupted = np.arange(COUNT) < 140
    columns = second_look(corrupted)
    kept, late = kept_rows(select_rows(scores(**columns))), np.asarray(columns["late_loss"])
    filled = kept[corrupted[kept]]
    lowest = np.flatnonzero(corrupted)[np.argsort(late[corrupted])][: len(filled)]
    assert len(filled) > 30
    assert sorted(filled) == sorted(lowest)


def test_few_anchors_can_find_corruption() -> None:
    corrupted = np.arange(COUNT) < COUNT // 2
    p = np.where(corrupted, 1 / 11, np.random.default_rng(0).integers(1, 12, COUNT) / 11)
    table = select_rows(scores(anchors=10, late_loss=p.tolist(), corrupted_p=p.tolist()))
    assert "part of it looks corrupted" in table.explanation
    assert "(p > 0.2)" in table.explanation
    assert corrupted[kept_rows(table)].mean() < 0.2


@pytest.mark.parametrize("anchors", [1, 2])
def test_two_anchors_take_no_hard_rows_of_a_clean_pool_away(anchors: int) -> None:
    """Nothing could be found corrupted, and half or a third of a clean pool is above all of so few anchors."""
    late = np.random.default_rng(0).random(COUNT)
    p = conformal_p(late, np.random.default_rng(1).random(anchors))
    table = scores(anchors=anchors, late_loss=late.tolist(), corrupted_p=p.tolist())
    tables = [select_rows(table, SelectionConfig(seed=seed)) for seed in range(10)]
    assert abs(np.mean([late[kept_rows(each)].mean() for each in tables]) - late.mean()) < 0.05
    assert f"so few anchors or rows cannot show corruption: all {COUNT} of {COUNT} rows" in tables[0].explanation
    assert "drawn from these, all alike" in tables[0].explanation


@pytest.mark.parametrize(("anchors", "least"), [(1, 0.4), (2, 0.4), (3, 0.95), (4, 0.95)])
def test_few_anchors_never_seek_corrupted_rows_out(anchors: int, least: float) -> None:
    generator = np.random.default_rng(0)
    is_clean = np.arange(COUNT) < COUNT // 2
    late = np.where(is_clean, generator.random(COUNT), 2 + generator.random(COUNT))
    p = conformal_p(late, 0.98 + 0.02 * generator.random(anchors))
    table = scores(anchors=anchors, late_loss=late.tolist(), corrupted_p=p.tolist())
    kept = [is_clean[kept_rows(select_rows(table, SelectionConfig(seed=seed)))].mean() for seed in range(10)]
    assert np.mean(kept) >= least


def test_auto_refuses_p_values_of_an_unknown_number_of_anchors() -> None:
    table = scores(**second_look(np.arange(COUNT) < COUNT // 2))
    with pytest.raises(DataError, match=r"does not say how many anchors .*: keep a score table's column"):
        select_rows(table.drop_columns(["p_value_anchors"]))


def test_it_is_said_where_only_rows_without_a_second_look_may_be_kept() -> None:
    columns = second_look(np.zeros(COUNT, dtype=bool))
    table = scores(**columns)
    utility = np.asarray(table["utility"].to_pylist())
    best = np.argsort(-utility)[:5]
    for column in columns.values():
        for row in best:
            column[row] = None
    found = select_rows(scores(**columns), SelectionConfig(min_utility=float(utility[best].min()), keep_count=3))
    assert found.explanation == "highest utility first (none of the rows that may be kept had a second look)"


def sketches(rows: int, seed: int) -> pa.Array:
    return pa.array(np.random.default_rng(seed).normal(size=(rows, 8)).tolist(), type=pa.list_(pa.float32()))


def test_setwise_reads_the_sketches_of_rows_and_anchors() -> None:
    unknown, held, given = (5, 90, 91, 150), sketches(ANCHORS, 3), sketches(COUNT, 2)
    known = [row for row in range(COUNT) if row not in unknown]
    whole = scores(sketch=pa.array([None if row in unknown else given[row] for row in range(COUNT)], given.type))
    utility = [None if row in unknown else value for row, value in enumerate(whole["utility"].to_pylist())]
    whole = whole.set_column(whole.column_names.index("utility"), "utility", pa.array(utility, pa.float64()))
    parts = pa.concat_tables([whole.slice(0, 60), whole.slice(60, 70), whole.slice(130)])
    table = select_rows(parts, SelectionConfig(order="setwise", keep_count=30), pa.table({"sketch": held}))
    ranks = table.table["rank"].to_pylist()
    rows, of_anchors = (np.array(each.to_pylist(), np.float32) for each in (given, held))
    expected = [known[place] for place in greedy(rows[known], of_anchors, 30).order]
    assert sorted(kept_rows(table), key=lambda row: ranks[row]) == expected
    assert [ranks[row] for row in unknown] == [None] * 4
    with pytest.raises(DataError, match=r"needs sketches of candidates and anchors: score with scoring\.sketch_size"):
        select_rows(parts, SelectionConfig(order="setwise"))
    with pytest.raises(
        ConfigError, match=r"order 'setwise' goes by columns .* \(.* none\): score with scoring\.sketch"
    ):
        select_rows(scores(), SelectionConfig(order="setwise"))


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_the_pool_does_not_matter(order: str) -> None:
    table = scores(sketch=sketches(COUNT, 2), **second_look(np.arange(COUNT) < COUNT // 3))
    anchors = pa.table({"sketch": sketches(ANCHORS, 3)})
    permutation = np.random.default_rng(5).permutation(COUNT)
    mixed = table.take(permutation).set_column(1, "row", pa.array(range(COUNT)))
    config = SelectionConfig(order=order, keep_ratio=0.3)
    names = [
        {record["example_id"]: record["rank"] for record in select_rows(one, config, anchors).table.to_pylist()}
        for one in (table, mixed)
    ]
    assert names[0] == names[1]


def test_diverse_leaves_out_what_is_near_a_row_taken() -> None:
    embedding = np.random.default_rng(4).normal(size=(COUNT, 8))
    embedding[1::2] = embedding[::2]
    table = scores(sketch=pa.array(embedding.tolist(), type=pa.list_(pa.float32())))
    selected = select_rows(table, SelectionConfig(order="diverse", keep_count=60))
    kept = kept_rows(selected)
    assert len(kept) == 60
    assert len({row // 2 for row in kept}) == 60
    with pytest.raises(
        ConfigError, match=r"score with scoring\.sketch_size \(.*\), or a scorer that gives an embedding"
    ):
        select_rows(scores(), SelectionConfig(order="diverse"))
    with pytest.raises(DataError, match="cannot be balanced"):
        select_rows(table, SelectionConfig(order="diverse", length_strata=3))


@pytest.mark.parametrize("order", ["auto", "top", "setwise"])
def test_balance_gives_each_value_its_part(order: str) -> None:
    table = scores(sketch=sketches(COUNT, 2), **second_look(np.arange(COUNT) < COUNT // 3))
    anchors = pa.table({"sketch": sketches(ANCHORS, 3)})
    source = ["large"] * 150 + ["small"] * 50
    for balance, expected in (("equal", 40), ("proportional", 20)):
        config = SelectionConfig(keep_count=80, balance_by="source", balance=balance, order=order)
        kept = kept_rows(select_rows(table, config, anchors, source))
        assert len(kept) == 80
        assert (kept >= 150).sum() == expected


def test_length_strata_keep_the_lengths_of_the_pool() -> None:
    table = scores(utility=[-float(row % 40) for row in range(COUNT)])
    short = table["tokens"].to_numpy()[kept_rows(select_rows(table))]
    even = table["tokens"].to_numpy()[kept_rows(select_rows(table, SelectionConfig(length_strata=4)))]
    assert short.max() <= 20
    assert abs(even.mean() - table["tokens"].to_numpy().mean()) < 3


def test_groups_become_one_utility() -> None:
    groups = {"group:a": np.arange(COUNT).astype(float), "group:b": -np.arange(COUNT).astype(float)}
    table = select_rows(scores(**groups), SelectionConfig(aggregate="min", keep_count=1))
    assert kept_rows(table).tolist() == [0]
    assert table.table["utility"].to_pylist() == (-np.arange(COUNT).astype(float)).tolist()
    with pytest.raises(ConfigError, match=r"selection\.aggregate goes by columns .*: score with scoring\.group_by"):
        select_rows(scores(), SelectionConfig(aggregate="min"))


def test_anchors_can_be_groups() -> None:
    per_anchor = pa.array(np.eye(COUNT, 4).tolist(), type=pa.list_(pa.float32()))
    config = SelectionConfig(aggregate="round_robin", aggregate_over="anchors", keep_count=4)
    assert kept_rows(select_rows(scores(anchor_utilities=per_anchor), config)).tolist() == [0, 1, 2, 3]
    with pytest.raises(
        ConfigError, match=r"aggregate_over 'anchors' goes by columns .*: score with scoring\.per_anchor"
    ):
        select_rows(scores(), config)


def test_similarities_are_groups_and_no_verdict() -> None:
    similar = pa.array(np.eye(COUNT, 4).tolist(), type=pa.list_(pa.float32()))
    config = SelectionConfig(aggregate="round_robin", aggregate_over="anchors", keep_count=4)
    table = select_rows(scores(anchor_similarities=similar), config)
    assert kept_rows(table).tolist() == [0, 1, 2, 3]
    assert "verdict" not in table.table.column_names


def test_aggregated_utilities_are_refused_where_they_would_decide_nothing() -> None:
    group = {"group:a": np.arange(COUNT).astype(float)}
    config = SelectionConfig(aggregate="min", order="auto")
    assert select_rows(scores(**group), config).table.num_rows == COUNT
    table = scores(sketch=sketches(COUNT, 2), **group, **second_look(np.arange(COUNT) < COUNT // 3))
    with pytest.raises(ConfigError, match=r"set selection\.order to top or diverse"):
        select_rows(table, config)
    with pytest.raises(ConfigError, match="'setwise' goes by sketches"):
        select_rows(table, SelectionConfig(aggregate="min", order="setwise"))
    assert select_rows(table, SelectionConfig(aggregate="min", order="top")).table.num_rows == COUNT


def test_verdicts_stand_beside_the_reasons() -> None:
    generator = np.random.default_rng(7)
    per_anchor = generator.normal(size=(COUNT, ANCHORS))
    per_anchor[:50] -= 2
    per_anchor[50:100] += 2
    column = pa.array(per_anchor.tolist(), type=pa.list_(pa.float32()))
    table = select_rows(scores(anchor_utilities=column), SelectionConfig(keep_ratio=1.0, drop_toxic=True))
    verdict = np.asarray(table.table["verdict"].to_pylist())
    assert (verdict[:50] == "toxic").all()
    assert (verdict[50:100] == "useful").all()
    assert (verdict[100:] == "uncertain").mean() > 0.9
    assert not set(kept_rows(table)) & set(np.flatnonzero(verdict == "toxic"))
    assert table.table["reason"].to_pylist()[0] == "toxic"


def test_dropping_toxic_rows_is_refused_where_no_row_could_be_called_toxic() -> None:
    p = np.random.default_rng(0).integers(1, 12, COUNT) / 11
    columns = {"late_loss": p.tolist(), "corrupted_p": p.tolist()}
    drop, refusal = SelectionConfig(drop_toxic=True), r"with 10 anchors no p-value .* is below 0\.091"
    table = scores(anchors=10, **columns)
    with pytest.raises(DataError, match=rf"{refusal}.* with 19 anchors at least"):
        select_rows(table, drop)
    with pytest.raises(DataError, match="does not say how many anchors"):
        select_rows(table.drop_columns(["p_value_anchors"]), drop)
    assert select_rows(scores(anchors=19, **columns), drop).table.num_rows == COUNT
    assert select_rows(table, SelectionConfig(drop_toxic=True, false_discovery_rate=0.1)).table.num_rows == COUNT


@pytest.mark.parametrize(("anchors", "refused"), [(1, True), (2, True), (3, False)])
def test_utilities_of_two_anchors_call_no_row_toxic_either(anchors: int, refused: bool) -> None:
    p = np.random.default_rng(0).integers(1, anchors + 2, COUNT) / (anchors + 1)
    utilities = np.random.default_rng(1).normal(-5, 1, size=(COUNT, anchors)).tolist()
    column = pa.array(utilities, type=pa.list_(pa.float32()))
    table = scores(anchors=anchors, late_loss=p.tolist(), corrupted_p=p.tolist(), anchor_utilities=column)
    if refused:
        with pytest.raises(DataError, match=f"with {anchors} anchors no p-value"):
            select_rows(table, SelectionConfig(drop_toxic=True))
    else:
        assert select_rows(table, SelectionConfig(drop_toxic=True)).table.num_rows == COUNT


def test_dropping_rows_that_hurt_two_anchors_is_refused_without_a_second_look() -> None:
    column = pa.array([[-1.0, -1.1]] * COUNT, type=pa.list_(pa.float32()))
    with pytest.raises(DataError, match=r"with 2 anchors no p-value of 'hurts the anchors' is below 0\.25"):
        select_rows(scores(anchor_utilities=column), SelectionConfig(drop_toxic=True))


def test_less_than_was_asked_for_is_said_with_its_reasons(caplog: pytest.LogCaptureFixture) -> None:
    embedding = pa.array(np.repeat(np.eye(COUNT // 4), 4, axis=0).tolist(), type=pa.list_(pa.float32()))
    table = select_rows(scores(sketch=embedding), SelectionConfig(order="diverse"))
    assert f"{COUNT // 2} rows were asked for, {COUNT // 4} are kept: {COUNT * 3 // 4} within 0.1 of" in caplog.text
    assert set(table.table["reason"].to_pylist()) == {"kept", "within 0.1 of a row taken"}
    caplog.clear()
    select_rows(scores(sketch=embedding), SelectionConfig(order="diverse", keep_count=10))
    select_rows(scores(), SelectionConfig(min_utility=0.0))
    assert "were asked for" not in caplog.text


def test_corrupted_rows_are_toxic() -> None:
    corrupted = np.arange(COUNT) < COUNT // 2
    table = select_rows(scores(**second_look(corrupted)))
    verdict = np.asarray(table.table["verdict"].to_pylist())
    assert (verdict[corrupted] == "toxic").all()
    assert (verdict[~corrupted] == "toxic").mean() < 0.1


def test_rooms_fill_the_quota() -> None:
    stratum = np.repeat(np.arange(3), [70, 20, 10])
    assert rooms(stratum, 50, "proportional").tolist() == [35, 10, 5]
    assert rooms(stratum, 51, "proportional").sum() == 51
    assert rooms(stratum, 60, "equal").tolist() == [30, 20, 10]
    assert rooms(stratum, 9, "equal").tolist() == [3, 3, 3]
    assert rooms(stratum, 100, "equal").tolist() == [70, 20, 10]
    with pytest.raises(ValueError, match="balance must be proportional or equal"):
        rooms(stratum, 10, "even")


def test_equal_lengths_are_never_parted() -> None:
    stratum = strata_of([1, 1, 1, 1, 5, 6, 7, 8], 4)
    assert len(set(stratum[:4])) == 1
    assert stratum[-1] == stratum.max()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": "best"}, "selection.order must be one of 'auto', 'likeliest', 'top', 'setwise', 'diverse'"),
        ({"aggregate": "median"}, "selection.aggregate must be one of 'mean'"),
        ({"aggregate_over": "anchors"}, "needs selection.aggregate"),
        ({"length_strata": 2, "balance_by": "source"}, "length_strata or selection.balance_by, not both"),
        ({"balance": "equal"}, "needs selection.balance_by"),
        ({"false_discovery_rate": 0.9}, "selection.false_discovery_rate must be a number > 0 and <= 0.5"),
    ],
)
def test_configuration_is_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SelectionConfig(**settings)


def test_what_is_missing_is_said() -> None:
    with pytest.raises(DataError, match="the values of 'source' were not given"):
        select_rows(scores(), SelectionConfig(balance_by="source"))
    with pytest.raises(ConfigError, match=r"selection\.drop_toxic goes by columns .*: score with a second look"):
        select_rows(scores(), SelectionConfig(drop_toxic=True))


def test_the_selection_says_what_it_was_made_with() -> None:
    selection = select_rows(scores(), SelectionConfig(keep_count=3))
    assert selection.metadata.settings["keep_count"] == 3
    assert "kept 3 of 200 rows: highest utility first" in repr(selection)


def test_the_configuration_knows_all_orders() -> None:
    assert set(ORDER_FUNCTIONS) == set(ORDERS)


def test_whether_a_pool_is_corrupted_is_judged_by_rows_that_were_held_out() -> None:
    """P-values of rows that a judge has learnt from are too large: they hide what the others show."""
    corrupted, columns = a_little_harder(share=0.5, by=1.5)
    held_out = np.arange(COUNT) % 2 == 0
    columns["corrupted_p"] = np.where(held_out, columns["corrupted_p"], np.ones(COUNT)).tolist()
    assert "no corruption was found" in select_rows(scores(**columns)).explanation
    told = select_rows(scores(**columns, held_out=held_out.tolist()))
    assert "part of it looks corrupted" in told.explanation
    assert corrupted[held_out].mean() == 0.5
    nobody = select_rows(scores(**columns, held_out=[None] * COUNT))
    assert "no corruption was found" in nobody.explanation
    columns["corrupted_p"] = [None if out else p for out, p in zip(held_out, columns["corrupted_p"], strict=True)]
    unseen = select_rows(scores(**columns, held_out=held_out.tolist()))
    assert "no corruption was found" in unseen.explanation, "held-out rows that have no p-value say nothing"


def test_likeliest_asks_which_rows_are_of_the_anchors_kind() -> None:
    generator = np.random.default_rng(5)
    of_kind = np.arange(COUNT) % 4 == 0
    centre = generator.normal(size=(2, 16)) * 2
    vectors = centre[of_kind.astype(int)] + generator.normal(size=(COUNT, 16))
    _, columns = a_little_harder(share=0.0, by=0.0)
    table = scores(embedding=vectors.astype(np.float32).tolist(), **columns)
    of_anchors = (centre[1] + generator.normal(size=(ANCHORS, 16))).astype(np.float32)
    anchors = pa.table({"row": list(range(ANCHORS)), "embedding": of_anchors.tolist()})
    config = SelectionConfig(order="likeliest", keep_ratio=0.2)
    told = with_other_kind_p(table, table.select(["row", "embedding"]), anchors)
    aimed, blind = (select_rows(each, config) for each in (told, table))
    assert of_kind[kept_rows(aimed)].mean() > 0.95 > 0.5 > of_kind[kept_rows(blind)].mean()
    assert "and of the anchors' kind" in aimed.explanation
    with pytest.raises(ConfigError, match="makes one utility of many, but selection"):
        SelectionConfig(order="likeliest", aggregate="min").check({"corrupted_p", "group:a"})
    with pytest.raises(ConfigError, match="likeliest' goes by columns that the scores lack"):
        SelectionConfig(order="likeliest").check({"utility"})
