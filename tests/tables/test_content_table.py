"""What rows say, beside their scores."""

from __future__ import annotations

from pathlib import Path

from ost_hf.tables.content_table import read_contents, write_contents
from ost_hf.tables.score_table import ScoreTable


def test_contents_survive_the_folder(tmp_path: Path) -> None:
    table = ScoreTable(tmp_path)
    assert read_contents(table) is None
    write_contents(table, ["b", "a", "b"])
    assert read_contents(table) == ["b", "a", "b"]
