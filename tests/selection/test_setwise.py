"""Set-wise selection."""

from __future__ import annotations

import numpy as np
import pytest

from ost_hf.selection.setwise import greedy, unit


def reference(
    sketch: np.ndarray,
    anchor: np.ndarray,
    quota: int,
    ridge: float = 1.0,
    block: int = 1,
    stratum: np.ndarray | None = None,
    room: np.ndarray | None = None,
) -> list[int]:
    """Matrices written out, and in each block one row at a time down the sorted gains."""
    x, v = unit(sketch).astype(np.float64), unit(anchor).astype(np.float64)
    a, size = v.mean(0), x.shape[1]
    curvature = v.T @ v / len(v) + ridge / size * np.eye(size)
    strata = [0] * len(x) if stratum is None else stratum.tolist()
    left = [len(x)] if room is None else room.tolist()
    wanted, chosen = min(quota, len(x)), []
    while len(chosen) < wanted:
        mean = x[chosen].mean(0) if chosen else np.zeros(size)
        bend = mean @ curvature @ mean
        step = max(0.0, a @ mean) / bend if bend > 0 else 0.0
        gain = x @ (a - 0.8 * len(chosen) / wanted * step * curvature @ mean)
        before = list(chosen)
        for row in sorted(set(range(len(x))) - set(chosen), key=lambda row: (-gain[row], row)):
            if len(chosen) < min(wanted, len(before) + block) and left[strata[row]] > 0:
                left[strata[row]] -= 1
                chosen.append(row)
        if chosen == before:
            break
    return chosen


@pytest.fixture
def sketches() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(60, 16)).astype(np.float32), generator.normal(size=(10, 16)).astype(np.float32) + 0.5


def test_blocks_of_one_are_the_greedy_reference(sketches) -> None:
    chosen = greedy(*sketches, quota=20, blocks=20, ridge=0.5)
    assert chosen.order.tolist() == reference(*sketches, 20, 0.5)


@pytest.mark.parametrize("blocks", [1, 3, 7, 200])
@pytest.mark.parametrize("seed", range(6))
def test_ties_and_strata_that_fill_up_in_a_block_are_the_greedy_reference(seed: int, blocks: int) -> None:
    """Sketches along axes: products are exact, so that some thirty rows tie at a time."""
    generator = np.random.default_rng(seed)
    sketch = np.eye(5, dtype=np.float32)[generator.integers(0, 5, 300)]
    sketch *= generator.choice([-2.0, 0.5, 1.0, 4.0], size=(300, 1)).astype(np.float32)
    anchor = generator.normal(size=(10, 5)).astype(np.float32) + 0.3
    # Strata that follow the gains fill up one after the other; some have no room at all.
    several = np.abs(sketch).argmax(1) * 2 + generator.integers(0, 2, 300)
    cases = [(None, None), (np.zeros(300, dtype=np.int64), np.array([120])), (several, generator.integers(0, 40, 10))]
    for stratum, room in cases:
        expected = reference(sketch, anchor, 150, block=-(-150 // blocks), stratum=stratum, room=room)
        assert greedy(sketch, anchor, 150, blocks, stratum_N=stratum, room=room).order.tolist() == expected


def test_lengths_of_sketches_do_not_matter(sketches) -> None:
    sketch, anchor = sketches
    longer = sketch * np.random.default_rng(1).uniform(0.1, 10, size=(60, 1)).astype(np.float32)
    assert greedy(longer, anchor, 20).order.tolist() == greedy(sketch, anchor, 20).order.tolist()


def test_a_set_covers_what_the_anchors_ask_for() -> None:
    """Two skills, one of them nine tenths of the pool, anchors half and half."""
    generator = np.random.default_rng(2)
    skills = np.eye(8)[:2]
    pool_skill = np.array([0] * 900 + [1] * 100)
    sketch = (skills[pool_skill] + 0.2 * generator.normal(size=(1000, 8))).astype(np.float32)
    anchor = (skills[np.arange(50) % 2] + 0.2 * generator.normal(size=(50, 8))).astype(np.float32)
    chosen = greedy(sketch, anchor, quota=160).order
    assert 0.35 < pool_skill[chosen].mean() < 0.65


def test_what_hurts_comes_last_and_is_marked() -> None:
    generator = np.random.default_rng(3)
    anchor = np.ones((5, 6), dtype=np.float32)
    sketch = np.concatenate([np.ones((10, 6)), -np.ones((10, 6))]).astype(np.float32)
    sketch += 0.01 * generator.normal(size=sketch.shape).astype(np.float32)
    chosen = greedy(sketch, anchor, quota=20, blocks=20)
    assert set(chosen.order[:10].tolist()) == set(range(10))
    assert chosen.positive == 10
    assert len(chosen.order) == 20


def test_strata_give_no_more_than_their_room(sketches) -> None:
    stratum = np.arange(60) % 3
    chosen = greedy(*sketches, quota=20, stratum_N=stratum, room=np.array([2, 15, 3]))
    assert np.bincount(stratum[chosen.order]).tolist() == [2, 15, 3]
    short = greedy(*sketches, quota=20, stratum_N=stratum, room=np.array([2, 3, 4]))
    assert len(short.order) == 9


def test_a_quota_above_the_pool_takes_all(sketches) -> None:
    assert sorted(greedy(*sketches, quota=100).order.tolist()) == list(range(60))


def test_pieces_give_the_same_as_the_whole(sketches, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = greedy(*sketches, quota=30)
    monkeypatch.setattr("ost_hf.selection.setwise._CHUNK", 7)
    assert greedy(*sketches, quota=30).order.tolist() == whole.order.tolist()


def test_sizes_are_checked(sketches) -> None:
    with pytest.raises(ValueError, match="candidates have sketches of 16 numbers, anchors of 8"):
        greedy(sketches[0], sketches[1][:, :8], 5)
    with pytest.raises(ValueError, match="strata and their room go together"):
        greedy(*sketches, 5, stratum_N=np.zeros(60, dtype=np.int64))
