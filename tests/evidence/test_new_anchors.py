"""Utilities against new anchors, from sketches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ost_hf.evidence.new_anchors import turn
from ost_hf.functional.sketch import Sketch

# As many parameters as some layers have; unit gradients of rows and of two sets of anchors that have much in common.
SIZE = 4000


def units(count: int, common: float, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    shared = np.random.default_rng(0).standard_normal(SIZE)
    rows = generator.standard_normal((count, SIZE)) + common * shared
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def gradients() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of rows, old anchors and new ones."""
    return units(30, 0.3, 1), units(20, 0.6, 2), units(25, 0.6, 3)


def sketched(vectors: np.ndarray, size: int, seed: int) -> np.ndarray:
    return Sketch(size, seed).part("all", torch.from_numpy(vectors)).numpy()


def test_utilities_are_mean_cosines_with_the_new_anchors_on_average(gradients) -> None:
    rows, old, new = gradients
    true, known = (rows @ anchors.mean(0) for anchors in (new, old))
    errors, expected = [], []
    for seed in range(200):
        how = turn(sketched(old, 64, seed), sketched(new, 64, seed))
        errors.append(how.utilities(known, sketched(rows, 64, seed)) - true)
        expected.append(how.standard_error)
    spread = np.std(errors)
    # Mean of 200 sketches: within four standard errors of the true value.
    assert np.abs(np.mean(errors, axis=0)).max() < 4 * spread / 200**0.5
    assert spread == pytest.approx(np.mean(expected), rel=0.2)


def test_what_old_anchors_have_told_needs_no_sketch(gradients) -> None:
    """The error is that of the part of the new mean alone which the old one lacks."""
    rows, old, new = gradients
    true, known = (rows @ anchors.mean(0) for anchors in (new, old))
    with_old, without = [], []
    for seed in range(50):
        of_rows, of_old, of_new = (sketched(each, 64, seed) for each in (rows, old, new))
        with_old.append(turn(of_old, of_new).utilities(known, of_rows) - true)
        without.append(of_rows @ of_new.mean(0) - true)
    assert np.std(with_old) < 0.6 * np.std(without)


def test_the_same_anchors_give_the_stored_utilities(gradients) -> None:
    rows, old, _ = gradients
    known, of_old = rows @ old.mean(0), sketched(old, 32, 0)
    how = turn(of_old, of_old[::-1])
    np.testing.assert_allclose(how.utilities(known, sketched(rows, 32, 0)), known, rtol=1e-12)
    assert how.standard_error < 1e-15


def test_sketches_of_half_precision_lose_next_to_nothing(gradients) -> None:
    rows, old, _ = gradients
    known = rows @ old.mean(0)
    of_rows, of_old, of_new = (sketched(each, 64, 0) for each in gradients)
    how = turn(of_old, of_new)
    half = turn(of_old.astype(np.float16), of_new.astype(np.float16))
    exact, rough = how.utilities(known, of_rows), half.utilities(known, of_rows.astype(np.float16))
    assert np.abs(exact - rough).max() < 0.01 * how.standard_error


def test_anchors_without_a_direction_tell_nothing() -> None:
    how = turn(np.zeros((3, 4)), np.ones((2, 4)))
    assert (how.share, how.rest.tolist()) == (0.0, [1.0] * 4)


def test_sketches_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="old anchors have sketches of 4 numbers, new ones of 5"):
        turn(np.zeros((3, 4)), np.zeros((3, 5)))
