"""What a scorer says of the anchors, beside the scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ost_hf.tables.anchor_table import anchor_file, read_anchor_scores, write_anchor_scores
from ost_hf.tables.score_table import ScoreTable


@pytest.mark.parametrize("vectors", [[], ["sketch"], ["sketch", "embedding"]])
def test_anchors_scores_survive_the_folder(tmp_path: Path, vectors: list[str]) -> None:
    table = ScoreTable(tmp_path)
    assert read_anchor_scores(table) is None
    columns = {"loss": np.array([0.5, 0.25]), "utility": np.array([np.nan, 1.0])}
    sketch = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    write_anchor_scores(table, columns | dict.fromkeys(vectors, sketch))
    assert anchor_file(table) == tmp_path / "anchors.parquet"
    found = read_anchor_scores(table)
    assert found is not None
    of_first, of_second = (
        {name: vector if name in vectors else None for name in ("sketch", "embedding")} for vector in sketch.tolist()
    )
    assert found.to_pylist() == [
        {"row": 0, "loss": 0.5, "utility": None, **of_first},
        {"row": 1, "loss": 0.25, "utility": 1.0, **of_second},
    ]
