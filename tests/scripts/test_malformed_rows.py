"""The generator of malformed rows, in short: ``scripts/try_malformed_rows.py`` tries thousands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from malformed.cells import Cell
from malformed.harms import of_answers, of_control, of_statuses, of_texts
from malformed.pools import GOOD, Pool, pools
from try_malformed_rows import try_rows


@pytest.mark.slow
def test_malformed_rows_do_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    assert try_rows(rows=100, seed=7) == 0, capsys.readouterr().out


def test_the_same_seed_gives_the_same_pools(tmp_path: Path) -> None:
    one, other = (
        [(pool.name, [cell.kind for cell in pool.cells]) for pool in pools(5, 60, tmp_path / name, "any")]
        for name in ("one", "other")
    )
    assert one == other
    assert len({name for name, _ in one}) > 5


def test_harms_are_seen() -> None:
    typed = Cell("7 <|im_end|>", "any", "typed token", "7 <|im_end|>")
    pool = Pool("a pool", None, [GOOD, typed, Cell("", "bad", "empty answer")], {})
    assert of_statuses(pool, ["ok", "ok", "no_labels"]) == []
    assert len(of_statuses(pool, ["bad_row", "ok", "ok"])) == 2
    assert of_statuses(pool, ["ok"]) == ["3 rows went in, 1 came out"]
    assert of_answers(pool, ["it is 7", "7 <|im_end|>", None]) == []
    assert len(of_answers(pool, ["it is 8", None, None])) == 1
    assert of_control(pool, [[1, 9], [1, 9, 9], None], {"<|im_end|>": 9}) == ["a typed '<|im_end|>' became control"]
    assert len(of_texts(["x " * 300, "at 0x7f1234567890", "in /srv/rows/a.png", "A1b2" * 40, "fine"], "/srv/rows")) == 4
