"""Rows of the anchors' kind, told by their vectors after a second look and chosen by ``select_rows``."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ost_hf.scoring.second_look.kinds import with_other_kind_p
from ost_hf.selection.config import SelectionConfig
from ost_hf.selection.kinds import kinds_of
from ost_hf.selection.selector import select_rows

ROWS, ANCHORS, DIMENSIONS = 1000, 60, 12


def vectors(generator: np.random.Generator, of_kind: np.ndarray) -> np.ndarray:
    """Those of the kind are moved along one of the directions."""
    made = generator.normal(size=(len(of_kind), DIMENSIONS)) + 5
    made[:, 0] += 8 * of_kind
    return made


def tables(of_kind: np.ndarray, clean: np.ndarray, anchors: int = ANCHORS) -> tuple[pa.Table, pa.Table]:
    """The pool's scores and the anchors': p-values of clean rows are uniform, those of the others small."""
    generator = np.random.default_rng(3)
    uniform = np.ceil(generator.random(ROWS) * (anchors + 1)) / (anchors + 1)
    scores = pa.table(
        {
            "example_id": [f"id{row:04d}" for row in range(ROWS)],
            "row": range(ROWS),
            "utility": generator.normal(size=ROWS),
            "loss": generator.random(ROWS),
            "tokens": [10] * ROWS,
            "status": ["ok"] * ROWS,
            "late_loss": np.where(clean, 0.2, 3.0) + 0.1 * generator.random(ROWS),
            "corrupted_p": np.where(clean, uniform, 1 / (anchors + 1)),
            "p_value_anchors": [anchors] * ROWS,
            "embedding": pa.array(list(vectors(generator, of_kind)), pa.list_(pa.float32())),
        }
    )
    of_anchors = vectors(generator, np.ones(anchors, dtype=bool))
    return scores, pa.table({"embedding": pa.array(list(of_anchors), pa.list_(pa.float32()))})


def told(scores: pa.Table, anchors: pa.Table | None) -> pa.Table:
    """The scores as the second look leaves them."""
    return with_other_kind_p(scores, scores.select(["row", "embedding"]), anchors)


def kept(scores: pa.Table, anchors: pa.Table | None, ratio: float) -> tuple[np.ndarray, str]:
    selection = select_rows(told(scores, anchors), SelectionConfig(keep_ratio=ratio))
    return np.flatnonzero(selection.table["kept"].to_numpy()), selection.explanation


@pytest.mark.parametrize("corrupted", [0.0, 0.3])
def test_rows_of_the_anchors_kind_and_clean_come_first(corrupted: float) -> None:
    generator = np.random.default_rng(4)
    of_kind, clean = generator.random(ROWS) < 0.25, generator.random(ROWS) >= corrupted
    scores, anchors = tables(of_kind, clean)
    rows, explanation = kept(scores, anchors, 0.1)
    assert (of_kind & clean)[rows].mean() > 0.95
    assert "are of the anchors' kind" in explanation
    # Of as many as there are, nearly all; what fills the quota after them is clean too.
    everything = int((of_kind & clean).sum())
    rows, _ = kept(scores, anchors, (everything + 50) / ROWS)
    assert (of_kind & clean)[rows].sum() > 0.93 * everything
    without, _ = kept(scores, None, 0.1)
    assert (of_kind & clean)[without].mean() < 0.5


def test_clean_rows_of_another_kind_fill_the_quota_before_corrupted_rows_of_the_anchors() -> None:
    generator = np.random.default_rng(4)
    of_kind, clean = generator.random(ROWS) < 0.3, generator.random(ROWS) >= 0.4
    scores, anchors = tables(of_kind, clean)
    # Corrupted rows have p-values up to 0.2: some of them may be clean, as far as that tells.
    p = scores["corrupted_p"].to_numpy().copy()
    p[~clean] = np.ceil(generator.random((~clean).sum()) * 12) / (ANCHORS + 1)
    scores = scores.set_column(scores.column_names.index("corrupted_p"), "corrupted_p", pa.array(p))
    wanted = int((of_kind & clean).sum())
    rows, _ = kept(scores, anchors, (wanted + 100) / ROWS)
    assert (of_kind & clean)[rows].mean() > 0.48
    assert (of_kind & ~clean)[rows].mean() < 0.15


def test_the_share_of_the_pool_that_is_of_the_kind_is_said() -> None:
    of_kind = np.arange(ROWS) < 300
    found = kinds_of(told(*tables(of_kind, np.ones(ROWS, dtype=bool))))
    assert found is not None
    assert found.share == pytest.approx(0.3, abs=0.08)
    assert found.weight > 0.6
    assert found.probability[of_kind].mean() > 10 * found.probability[~of_kind].mean()


@pytest.mark.parametrize("ratio", [0.1, 0.5])
def test_nothing_changes_where_the_pool_is_of_the_anchors_kind(ratio: float) -> None:
    everywhere = np.ones(ROWS, dtype=bool)
    scores, anchors = tables(everywhere, np.arange(ROWS) % 3 > 0)
    assert kept(scores, anchors, ratio)[0].tolist() == kept(scores, None, ratio)[0].tolist()
    assert kept(scores, anchors, ratio)[1] == kept(scores, None, ratio)[1]


def test_corrupted_rows_are_no_other_kind() -> None:
    """Half of the pool is junk, which is unlike the anchors; the clean half is of their kind."""
    clean = np.arange(ROWS) % 2 == 0
    scores, anchors = tables(clean, clean)
    found = kinds_of(told(scores, anchors))
    assert found is not None
    assert found.weight == 0
    assert kept(scores, anchors, 0.4)[0].tolist() == kept(scores, None, 0.4)[0].tolist()


def test_one_anchor_tells_nothing_of_kinds() -> None:
    scores, anchors = tables(np.arange(ROWS) < 300, np.ones(ROWS, dtype=bool), anchors=1)
    assert kinds_of(told(scores, anchors)) is None


def test_a_row_without_a_vector_comes_after_those_that_have_one() -> None:
    of_kind = np.arange(ROWS) < 300
    scores, anchors = tables(of_kind, np.ones(ROWS, dtype=bool))
    missing = [row % 2 == 0 for row in range(ROWS)]
    vector = pa.array([None if no else v for no, v in zip(missing, scores["embedding"].to_pylist(), strict=True)])
    scores = scores.set_column(scores.column_names.index("embedding"), "embedding", vector)
    rows, _ = kept(scores, anchors, 0.1)
    assert not np.asarray(missing)[rows].any()
    assert of_kind[rows].mean() > 0.95


def test_a_table_in_half_precision_tells_the_same_kinds() -> None:
    scores, anchors = tables(np.arange(ROWS) < 300, np.ones(ROWS, dtype=bool))
    halves = pa.array(
        [np.asarray(each, np.float16) for each in scores["embedding"].to_pylist()], pa.list_(pa.float16())
    )
    short = scores.set_column(scores.column_names.index("embedding"), "embedding", halves)
    of_short, of_long = (told(each, anchors)["other_kind_p"].to_numpy() for each in (short, scores))
    assert np.abs(of_short - of_long).max() < 0.05


def test_rows_stand_in_another_order_than_the_first_looks() -> None:
    scores, anchors = tables(np.arange(ROWS) < 300, np.ones(ROWS, dtype=bool))
    order = np.random.default_rng(0).permutation(ROWS)
    mixed = with_other_kind_p(scores, scores.select(["row", "embedding"]).take(order), anchors)
    assert mixed["other_kind_p"].to_pylist() == told(scores, anchors)["other_kind_p"].to_pylist()


def test_an_anchor_whose_vector_is_not_finite_is_named(caplog: pytest.LogCaptureFixture) -> None:
    scores, anchors = tables(np.arange(ROWS) < 300, np.ones(ROWS, dtype=bool))
    broken = [np.full(DIMENSIONS, np.nan), *anchors["embedding"].to_pylist()[1:]]
    anchors = pa.table({"embedding": pa.array(list(broken), pa.list_(pa.float32()))})
    assert "other_kind_p" not in told(scores, anchors).column_names
    assert "rows of the anchors' kind cannot be told" in caplog.text
