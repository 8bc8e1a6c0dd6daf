"""Turns are contiguous runs of labels."""

from __future__ import annotations

import math

import pytest
import torch

from ost_hf.functional.turns import split_turns, turn_means, turn_numbers, without_turns

N = -100
CASES = [
    ([N, N, 1, 2, N, 3, N, N, 4, 5], [[2, 3], [5], [8, 9]]),
    ([N, N, N, N], []),
    ([7, 8, 9, N], [[1, 2]]),
    ([7, N, 9, N], [[2]]),
    ([7, N, N, N], []),
    ([N, 1, 1, 1], [[1, 2, 3]]),
    ([N, 1, N, 2], [[1], [3]]),
]


def runs_by_hand(labels: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for place in range(1, len(labels)):
        if labels[place] == N:
            continue
        if place > 1 and labels[place - 1] != N:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


@pytest.mark.parametrize(("labels", "runs"), CASES)
def test_turns_of_a_row(labels: list[int], runs: list[list[int]]) -> None:
    assert runs_by_hand(labels) == runs
    row = torch.tensor(labels)
    number = turn_numbers(row[None])[0].tolist()
    assert number == [next((k for k, run in enumerate(runs) if place in run), -1) for place in range(1, len(labels))]
    split = split_turns(row)
    assert [(labels != N).nonzero()[:, 0].tolist() for labels in split] == runs
    for k, run in enumerate(runs):
        left = without_turns(row, [k])
        assert (left[1:] != N).nonzero()[:, 0].tolist() == [p - 1 for r in runs if r != run for p in r]
        assert torch.equal(left[left != N], row[left != N])


def test_means_are_those_of_a_loop_for_rows_of_unlike_turns() -> None:
    torch.manual_seed(0)
    labels = torch.where(torch.rand(20, 15) < 0.6, torch.randint(0, 9, (20, 15)), N)
    labels[3] = N
    count = int((labels[:, 1:] != N).sum())
    values = torch.rand(count, dtype=torch.float64)
    means = turn_means(values, labels)
    of_place = iter(values.tolist())
    for row, found in zip(labels.tolist(), means.tolist(), strict=True):
        number = {place: next(of_place) for place in range(1, len(row)) if row[place] != N}
        expected = [sum(number[place] for place in run) / len(run) for run in runs_by_hand(row)]
        assert found[: len(expected)] == pytest.approx(expected, abs=1e-12)
        assert all(math.isnan(each) for each in found[len(expected) :])
    assert means.shape[1] == max(len(runs_by_hand(row)) for row in labels.tolist())


def test_a_batch_without_labels_has_no_turn() -> None:
    assert turn_means(torch.zeros(0), torch.full((2, 4), N)).isnan().all()
