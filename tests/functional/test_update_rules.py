"""What holds for every registered rule, and for one that a user writes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from moments import SHAPE, warm_state
from torch import Tensor

from ost_hf.errors import ConfigError
from ost_hf.functional.exact import exact_utilities
from ost_hf.functional.reverse import anchor_directions, first_order_utilities
from ost_hf.functional.step import UpdateRule
from ost_hf.functional.update_rules import UPDATE_RULES, RuleFunctions, update_rule

RULES = UPDATE_RULES.names()
LINEAR = [name for name in RULES if UPDATE_RULES.find(name).has_linear_rate]


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture
def rule(request: pytest.FixtureRequest) -> UpdateRule:
    torch.manual_seed(1)
    return UpdateRule(request.param, 1e-2, weight_decay=0.1, state=warm_state(torch.float64, 5))


@pytest.fixture
def own_rules() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    ours = {name: UPDATE_RULES.find(name) for name in UPDATE_RULES.names()}
    yield
    UPDATE_RULES._entries.clear()
    UPDATE_RULES._entries.update(ours)


def test_our_rules_are_found_by_the_name_of_their_file() -> None:
    assert RULES == ["adamw", "lion", "sgd"]


@pytest.mark.parametrize("rule", RULES, indirect=True)
def test_displacement_is_the_step_beyond_the_step_without_the_candidate(rule: UpdateRule) -> None:
    parameter, gradients = normal(*SHAPE), normal(3, *SHAPE)
    without = rule.step("w", parameter, torch.zeros_like(parameter))
    expected = torch.stack([rule.step("w", parameter, gradient) - without for gradient in gradients])
    torch.testing.assert_close(rule.displacement("w", gradients), expected, rtol=1e-9, atol=1e-12)
    assert rule.displacement("w", gradients).abs().max() > 0


@pytest.mark.parametrize("rule", RULES, indirect=True)
def test_zero_gradient_displaces_nothing(rule: UpdateRule) -> None:
    assert torch.equal(rule.displacement("w", torch.zeros(2, *SHAPE).double()), torch.zeros(2, *SHAPE).double())
    assert rule.displacement("w", torch.zeros(0, *SHAPE).double()).shape == (0, *SHAPE)


@pytest.mark.parametrize("rule", RULES, indirect=True)
def test_samples_of_a_batch_do_not_meet(rule: UpdateRule) -> None:
    parameter, gradients = normal(*SHAPE), normal(3, *SHAPE)
    together = rule.step("w", parameter, gradients)
    alone = torch.stack([rule.step("w", parameter, gradient) for gradient in gradients])
    torch.testing.assert_close(together, alone, rtol=0, atol=0)


@pytest.mark.parametrize("rule", RULES, indirect=True)
def test_step_changes_neither_state_nor_inputs(rule: UpdateRule) -> None:
    parameter, gradient = normal(*SHAPE), normal(*SHAPE)
    held = (parameter, gradient, rule.moments.exp_avg["w"], rule.moments.exp_avg_sq["w"])
    before = [tensor.clone() for tensor in held]
    first = rule.step("w", parameter, gradient)
    rule.displacement("w", gradient[None])
    torch.testing.assert_close(rule.step("w", parameter, gradient), first, rtol=0, atol=0)
    for old, new in zip(before, held, strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize("rule", RULES, indirect=True)
def test_weight_decay_is_taken_off_beside_the_move(rule: UpdateRule) -> None:
    parameter, gradient = normal(*SHAPE), normal(*SHAPE)
    plain = UpdateRule(rule.name, rule.learning_rate, state=rule.state)
    expected = plain.step("w", parameter, gradient) - 1e-2 * 0.1 * parameter
    torch.testing.assert_close(rule.step("w", parameter, gradient), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rule", RULES, indirect=True)
def test_preconditioner_is_positive_and_of_the_shape_of_the_parameter(rule: UpdateRule) -> None:
    preconditioner = rule.preconditioner("w", normal(*SHAPE))
    assert preconditioner.shape == SHAPE
    assert preconditioner.dtype == torch.float64
    assert (preconditioner > 0).all()


@pytest.mark.parametrize("rule", LINEAR, indirect=True)
def test_linear_rate_is_the_derivative_of_the_displacement(rule: UpdateRule) -> None:
    gradient, parameter = normal(1, *SHAPE), normal(*SHAPE)
    slope = (rule.displacement("w", 1e-6 * gradient) - rule.displacement("w", -1e-6 * gradient)) / 2e-6
    torch.testing.assert_close(slope[0], -rule.linear_rate("w", parameter) * gradient[0], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("rule", sorted(set(RULES) - set(LINEAR)), indirect=True)
def test_rule_without_a_linear_rate_says_what_to_do(rule: UpdateRule) -> None:
    with pytest.raises(ConfigError, match=rf"'{rule.name}' .*use scoring\.one_step\.estimator 'reverse' or 'exact'"):
        rule.linear_rate("w", normal(*SHAPE))


@pytest.mark.parametrize("name", RULES)
def test_rule_can_be_made_of_its_name_and_its_defaults(name: str) -> None:
    functions = UPDATE_RULES.find(name)
    made = UpdateRule(name, functions.default_learning_rate, state=warm_state(torch.float64, 1))
    assert made.learning_rate > 0
    assert made.betas == functions.default_betas
    assert UpdateRule(name, 1.0, betas=(0.5, 0.6), state=made.state).betas == (0.5, 0.6)


@pytest.mark.parametrize("name", [name for name in RULES if UPDATE_RULES.find(name).needs_moments])
def test_rule_that_needs_moments_is_refused_without(name: str) -> None:
    with pytest.raises(ConfigError, match=f"the {name} update rule needs the moments of a warm-up"):
        UpdateRule(name, 1e-3)


@pytest.mark.parametrize("name", RULES)
def test_raw_utilities_are_first_order_in_the_anchors_loss(case, name: str) -> None:
    """Half the learning rate, half the relative distance from the exact utilities."""
    candidates = case.candidates[:3]
    distances = []
    for learning_rate in (2e-5, 1e-5):
        rule = UpdateRule(name, learning_rate, state=case.adam)
        steps = exact_utilities(case.model, case.parameters, candidates, case.anchors, rule)
        exact = torch.stack([utility_V.mean() for utility_V, _ in steps])
        directions = anchor_directions(case.model, case.pairs, case.anchors, rule, "raw")
        raw = [
            first_order_utilities(case.model, case.pairs, candidate, directions, rule).utility[0, 0]
            for candidate in candidates
        ]
        distances.append(float((exact - torch.stack(raw)).norm() / exact.norm()))
    assert distances[0] < 0.1
    assert distances[0] / distances[1] == pytest.approx(2, rel=0.1)


@pytest.mark.usefixtures("own_rules")
def test_rule_of_a_users_own_scores(case) -> None:
    @update_rule("heavy_ball")
    class HeavyBall(RuleFunctions):
        needs_moments = True
        default_learning_rate = 1e-3

        def move(self, rule: UpdateRule, name: str, gradient: Tensor) -> Tensor:
            return -rule.learning_rate * (rule.betas[0] * rule.moments.exp_avg[name] + gradient)

        def linear_rate(self, rule: UpdateRule, name: str, parameter: Tensor) -> Tensor:
            return torch.full_like(parameter, rule.learning_rate)

        def preconditioner(self, rule: UpdateRule, name: str, parameter: Tensor) -> Tensor:
            return torch.ones_like(parameter)

    def utilities(rule: UpdateRule, utility: str) -> Tensor:
        directions = anchor_directions(case.model, case.pairs, case.anchors, rule, utility)
        return first_order_utilities(case.model, case.pairs, case.batch, directions, rule).utility

    own, sgd = UpdateRule("heavy_ball", 1e-3, state=case.adam), UpdateRule("sgd", 1e-3)
    name, parameter = next((name, parameter.detach()) for name, parameter in case.parameters.items())
    pushed = parameter - 1e-3 * 0.9 * case.adam.exp_avg[name]
    torch.testing.assert_close(own.step(name, parameter, torch.zeros_like(parameter)), pushed, rtol=0, atol=1e-15)
    # The momentum's push is the same with and without the candidate, so the utilities are plain SGD's.
    for utility in ("raw", "mean_cosine"):
        torch.testing.assert_close(utilities(own, utility), utilities(sgd, utility), rtol=1e-9, atol=1e-14)
    assert "heavy_ball" in UPDATE_RULES.names()


@pytest.mark.usefixtures("own_rules")
def test_incomplete_rule_is_refused_and_what_it_lacks_is_named() -> None:
    class Incomplete(RuleFunctions):
        default_learning_rate = 1e-3

        def move(self, rule: UpdateRule, name: str, gradient: Tensor) -> Tensor:
            return -gradient

        def preconditioner(self, rule: UpdateRule, name: str, parameter: Tensor) -> Tensor:
            return torch.ones_like(parameter)

    with pytest.raises(ConfigError, match=r"'mine' \(Incomplete\) lacks needs_moments, linear_rate: see RuleFunctions"):
        update_rule("mine")(Incomplete)
    assert "mine" not in UPDATE_RULES
