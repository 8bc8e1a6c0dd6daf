"""The column ost_weight through ``select_rows``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from test_orders import COUNT, scores, second_look

from ost_hf.errors import ConfigError, DataError
from ost_hf.evidence.weights import row_weights
from ost_hf.scoring.second_look.kinds import with_other_kind_p
from ost_hf.selection.config import SelectionConfig
from ost_hf.selection.selector import select_rows

CORRUPTED = np.arange(COUNT) < COUNT // 2


@pytest.mark.parametrize("settings", [{"keep_ratio": 1.0}, {"keep_ratio": 0.3}, {"keep_ratio": 0.3, "order": "top"}])
def test_every_row_has_a_weight_whether_kept_or_not(settings: dict) -> None:
    table = scores(**second_look(CORRUPTED))
    plain = select_rows(table, SelectionConfig(**settings))
    weighed = select_rows(table, SelectionConfig(**settings, weighted_loss=True))
    assert weighed.table.drop_columns("ost_weight").equals(plain.table)
    weights = weighed.table["ost_weight"].to_numpy()
    assert np.array_equal(weights, row_weights(table["corrupted_p"].to_numpy(), 50))
    assert weights[CORRUPTED].max() < weights[~CORRUPTED].mean()
    assert "the kept rows have weights from" in weighed.explanation


def test_weights_follow_their_rows() -> None:
    table = scores(**second_look(CORRUPTED))
    config = SelectionConfig(weighted_loss=True)
    shuffled = table.take(np.random.default_rng(3).permutation(COUNT))
    assert select_rows(shuffled, config).table.equals(select_rows(table, config).table)


def test_rows_of_another_kind_weigh_less() -> None:
    generator = np.random.default_rng(4)
    other = np.arange(COUNT) % 5 > 0
    middle = np.where(other[:, None], -2.0, 2.0) * np.eye(8)[0]
    vectors = (middle + generator.normal(size=(COUNT, 8))).astype(np.float32)
    anchors = (2 * np.eye(8)[0] + generator.normal(size=(50, 8))).astype(np.float32)
    kind = pa.list_(pa.float32())
    table = scores(**second_look(np.zeros(COUNT, bool))).append_column("embedding", pa.array([*vectors], kind))
    config = SelectionConfig(weighted_loss=True)
    told = with_other_kind_p(
        table, table.select(["row", "embedding"]), pa.table({"embedding": pa.array([*anchors], kind)})
    )
    weights = select_rows(told, config).table["ost_weight"].to_numpy()
    assert weights[other].mean() < 0.3 < 0.6 < weights[~other].mean()


def test_row_without_a_second_look_has_weight_zero_and_is_said() -> None:
    columns = second_look(CORRUPTED)
    columns["corrupted_p"][150] = columns["late_loss"][150] = None
    table = select_rows(scores(**columns), SelectionConfig(keep_ratio=1.0, weighted_loss=True))
    weights = table.table["ost_weight"]
    assert weights.null_count == 0 and weights[150].as_py() == 0
    assert "1 rows of the pool had no second look and have weight 0" in table.explanation


@pytest.mark.parametrize("order", ["auto", "top"])
def test_scores_without_a_second_look_have_no_weights(order: str) -> None:
    config = SelectionConfig(order=order, weighted_loss=True)
    with pytest.raises(ConfigError, match=r"selection\.weighted_loss goes by columns .*: score with a second look"):
        select_rows(scores(), config)
    none = {"late_loss": np.full(COUNT, np.nan), "corrupted_p": np.full(COUNT, np.nan)}
    with pytest.raises(DataError, match="no row had a second look, and weights are made of its p-values"):
        select_rows(scores(**none), config)
