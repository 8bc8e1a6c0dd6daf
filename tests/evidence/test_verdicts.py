"""P-values, false-discovery rates, verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from ost_hf.evidence.verdicts import benjamini_hochberg, hurts_p, least_hurts_p, verdicts


def benjamini_hochberg_reference(p: list[float], rate: float) -> set[int]:
    """The definition, tried for every k."""
    ordered = sorted(range(len(p)), key=lambda i: p[i])
    passing = [k for k in range(1, len(p) + 1) if p[ordered[k - 1]] <= k * rate / len(p)]
    return set(ordered[: max(passing, default=0)])


@pytest.mark.parametrize("seed", range(5))
def test_rejections_are_those_of_the_definition(seed: int) -> None:
    generator = np.random.default_rng(seed)
    p = np.concatenate([generator.random(40), generator.random(20) ** 6])
    assert set(np.flatnonzero(benjamini_hochberg(p, 0.1))) == benjamini_hochberg_reference(p.tolist(), 0.1)


@pytest.mark.parametrize("count", [1, 20, 43, 81, 86, 91, 999])
def test_p_values_equal_to_the_bound_are_rejected(count: int) -> None:
    assert benjamini_hochberg(np.full(count, 1 / 20), 0.05).all()


@pytest.mark.parametrize("anchors", [2, 3, 5])
def test_no_p_value_of_hurting_is_below_the_least(anchors: int) -> None:
    utility = np.random.default_rng(0).normal(-100, 1, size=(200, anchors))
    assert hurts_p(utility).min() >= 0.8 * least_hurts_p(anchors)


def test_nothing_is_rejected_among_uniform_p_values_as_a_rule() -> None:
    generator = np.random.default_rng(0)
    assert sum(benjamini_hochberg(generator.random(500), 0.05).any() for _ in range(200)) < 20
    assert not benjamini_hochberg(np.array([]), 0.05).any()


def test_the_false_discovery_rate_of_hurting_is_held() -> None:
    """Candidates whose true mean is zero or positive are rarely called harmful, those far below mostly are."""
    generator = np.random.default_rng(1)
    false, calls, found = 0, 0, 0
    for _ in range(5):
        mean = np.where(generator.random(600) < 0.4, -0.5, generator.random(600) * 0.3)
        # Skewed, heavier than a normal distribution.
        noise = generator.exponential(1.0, size=(600, 100)) - 1
        rejected = benjamini_hochberg(hurts_p(mean[:, None] + noise, resamples=500), 0.05)
        false += (rejected & (mean >= 0)).sum()
        calls += rejected.sum()
        found += (rejected & (mean < 0)).sum() / (mean < 0).sum() / 5
    assert false / calls <= 0.07
    assert found > 0.9


def hurts_p_reference(utility: np.ndarray, resamples: int, seed: int) -> list[float]:
    """One candidate and one resample at a time."""
    anchors = utility.shape[1]
    draws = np.random.default_rng(seed).integers(0, anchors, size=(resamples, anchors))
    found = []
    for row in utility:
        t = row.mean() / (row.std(ddof=1) / np.sqrt(anchors))
        below = 0
        for draw in draws:
            again = row[draw]
            if len(set(again.tolist())) == 1:
                t_star = np.inf if again[0] > row.mean() else -np.inf
            else:
                t_star = (again.mean() - row.mean()) / (again.std(ddof=1) / np.sqrt(anchors))
            below += t_star <= t
        found.append((1 + below) / (1 + resamples))
    return found


@pytest.mark.parametrize("anchors", [2, 3, 12])  # of few, many a resample is of one anchor alone
def test_p_values_are_those_of_the_bootstrap_written_out(anchors: int) -> None:
    generator = np.random.default_rng(3)
    utility = generator.normal(size=(25, anchors)) + generator.normal(size=(25, 1))
    found = hurts_p(utility, resamples=200, seed=4)
    assert found.tolist() == hurts_p_reference(utility, 200, 4)


def test_p_values_do_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    utility = np.random.default_rng(2).normal(size=(50, 20))
    whole = hurts_p(utility, resamples=100)
    monkeypatch.setattr("ost_hf.evidence.verdicts._BLOCK", 7)
    np.testing.assert_array_equal(hurts_p(utility, resamples=100), whole)


def test_without_spread_the_sign_decides() -> None:
    p = hurts_p(np.array([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]), resamples=99)
    assert p[0] == pytest.approx(0.01)
    assert p[1] == 1.0


def test_one_anchor_has_no_spread() -> None:
    with pytest.raises(ValueError, match="at least two anchors, got 1"):
        hurts_p(np.zeros((3, 1)))


def test_toxic_outweighs_useful() -> None:
    sure, unsure = 0.001, 0.9
    result = verdicts(
        0.05,
        hurts=np.array([sure, unsure, unsure, unsure]),
        helps=np.array([unsure, sure, sure, unsure]),
        corrupted=np.array([unsure, sure, unsure, unsure]),
    )
    assert result.tolist() == ["toxic", "toxic", "useful", "uncertain"]
    with pytest.raises(ValueError, match="no p-values"):
        verdicts(0.05)
