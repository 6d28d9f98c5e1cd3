"""Rule objects: state, JSON round trip, the library behind the peers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from taiji.core.errors import TaijiError
from taiji.nn.objective_weights import min_norm
from taiji.nn.weighting_rules import RULES, Observation, RuleOptions, make_rule


def observations(count: int = 3, number: int = 8) -> list[Observation]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(number):
        g = rng.normal(size=(count, 5))
        found.append(
            Observation(
                rewards=rng.gamma(2.0, size=(16, count)), group=4, gram=g @ g.T, square_norm=float((g**2).sum(1).mean())
            )
        )
    return found


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("mode", ["robust", "paper"])
def test_state_goes_through_json_bit_for_bit(name, mode):
    straight, resumed = (
        make_rule(name, 3, RuleOptions(mode=mode, eta=0.01)),
        make_rule(name, 3, RuleOptions(mode=mode, eta=0.01)),
    )
    seen = observations()
    for observation in seen[:4]:
        straight.observe(observation)
    resumed.load(json.loads(json.dumps(straight.state())))
    for observation in seen[4:]:
        first, second = straight.observe(observation), resumed.observe(observation)
        assert np.array_equal(first.weights, second.weights) and first.delta == second.delta
        assert first.weights.sum() == pytest.approx(1) and first.weights.min() >= 0
    assert straight.state() == resumed.state()


def test_descent_peers_against_closed_forms():
    gram = np.array([[2.0, -1.0], [-1.0, 1.0]])
    seen = Observation(gram=gram, square_norm=1.5)
    assert make_rule("mgda", 2, RuleOptions()).observe(seen).weights == pytest.approx(min_norm(gram), abs=1e-3)
    # PCGrad: g1 - <g1,g2>/|g2|^2 g2 plus g2 - <g2,g1>/|g1|^2 g1 = (1 + 1/2) g1 + (1 + 1) g2
    assert make_rule("pcgrad", 2, RuleOptions()).observe(seen).weights == pytest.approx(
        np.array([1.5, 2.0]) / 3.5, abs=1e-6
    )
    assert make_rule("upgrad", 2, RuleOptions()).observe(seen).weights == pytest.approx(
        np.array([0.75, 1.0]) / 1.75, abs=1e-3
    )
    # Proportional fairness, w_i (G w)_i equal: at K = 2 the weights are inverse to the norms, whatever the gradients'
    # size.
    for size in (1e-12, 1.0, 1e12):
        scaled = Observation(gram=size * gram, square_norm=1.5)
        assert make_rule("fairgrad", 2, RuleOptions()).observe(scaled).weights == pytest.approx(
            np.array([1.0, np.sqrt(2)]) / (1 + np.sqrt(2)), abs=1e-3
        )
    with pytest.raises(TaijiError, match="full Gram matrix"):
        make_rule("mgda", 2, RuleOptions()).observe(Observation(indicators=np.zeros(2)))


def test_the_library_leaves_torchs_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    make_rule("pcgrad", 3, RuleOptions()).observe(observations()[0])
    assert torch.equal(before, torch.get_rng_state())


def test_popo_moves_towards_the_larger_gradient_at_two_rewards():
    rule = make_rule("popo", 2, RuleOptions(floor=0.0))
    rule.observe(Observation(gram=np.array([[4.0, 3.0], [3.0, 1.0]]), square_norm=2.5))
    assert rule.weights[0] > 0.5
    paper = make_rule("popo", 2, RuleOptions(mode="paper", eta=0.1, mu=2.0, initial=(0.2, 0.8)))
    reading = paper.observe(Observation(gram=np.array([[4.0, 3.0], [3.0, 1.0]])))
    odds = 0.25 * np.exp(0.05 * (4.0 - 1.0))
    assert reading.weights[0] == pytest.approx(odds / (1 + odds), abs=1e-12) and reading.indicators.tolist() == [
        7.0,
        4.0,
    ]


def test_errors():
    with pytest.raises(TaijiError, match="There is no such weighting"):
        make_rule("best", 2, RuleOptions())
    with pytest.raises(TaijiError, match="do not match"):
        make_rule("popo", 2, RuleOptions(initial=(1.0, 0.0)))
    with pytest.raises(TaijiError, match="no longer finite"):
        make_rule("popo", 2, RuleOptions(mode="paper")).observe(Observation(gram=np.full((2, 2), np.inf)))


def test_the_average_of_a_late_reward_begins_with_its_first_value():
    rule = make_rule("dwa", 2, RuleOptions(average=0.9))
    early, both = np.array([[1.0, np.nan]]), np.array([[1.0, 4.0]])
    for rewards in (early, early, both):
        weights = rule.observe(Observation(rewards=rewards)).weights
    assert weights == pytest.approx([0.5, 0.5]), "neither of them has grown"
    assert rule.observe(Observation(rewards=np.array([[1.0, 8.0]]))).weights[1] < 0.5
    before = rule.weights
    assert np.array_equal(rule.observe(Observation(rewards=np.full((1, 2), np.nan))).weights, before)


def test_an_observation_that_is_not_finite_is_skipped_and_counted(caplog):
    straight, skipping = (make_rule("popo", 2, RuleOptions()) for _ in range(2))
    good = Observation(gram=np.array([[4.0, 0.0], [0.0, 1.0]]), square_norm=2.5)
    bad = Observation(gram=np.full((2, 2), np.nan), square_norm=np.nan)
    for number in range(10):
        straight.observe(good)
        skipping.observe(good)
        if number == 3:
            reading = skipping.observe(bad)
            assert reading.delta == 0 and reading.indicators is None
    assert np.array_equal(straight.weights, skipping.weights) and straight.weights[0] > 0.6
    assert skipping.skipped == 1 and caplog.text.count("not finite") == 1
    infinite = make_rule("popo-light", 2, RuleOptions()).observe(Observation(rewards=np.array([[np.inf, 1], [1, 2]])))
    assert infinite.delta == 0


@pytest.mark.parametrize("aligned", [-0.5, 0.0, 0.9], ids=["against", "apart", "aligned"])
@pytest.mark.parametrize("directional", [False, True], ids=["gram", "indicators"])
def test_a_reward_that_is_rarely_there_keeps_its_weight(aligned, directional):
    """Nine of ten batches do not have the second reward; where they do, its gradient is as large as the first's."""
    rule = make_rule("popo", 2, RuleOptions())
    for number in range(300):
        there = number % 10 == 0
        gram = np.array([[1.0, aligned * there], [aligned * there, 1.0 * there]])
        seen = {"indicators": gram.sum(1)} if directional else {"gram": gram}
        rule.observe(Observation(square_norm=1.0, present=(True, there), **seen))
    assert rule.weights == pytest.approx([0.5, 0.5], abs=1e-12)


@pytest.mark.parametrize("mode", ["robust", "paper"])
def test_the_others_share_what_they_had_among_themselves(mode):
    rule = make_rule("popo", 3, RuleOptions(mode=mode, eta=0.1, initial=(0.5, 0.3, 0.2)))
    rule.observe(Observation(gram=np.diag([4.0, 1.0, 0.0]), square_norm=2.5, present=(True, True, False)))
    assert rule.weights[2] == pytest.approx(0.2, abs=1e-12) and rule.weights.sum() == pytest.approx(1, abs=1e-12)
    assert rule.weights[0] > 0.5


@pytest.mark.parametrize("name", RULES)
def test_a_reward_that_is_never_there_stays_where_it_started(name):
    if name == "random":
        pytest.skip("draws whatever the rewards are")
    rule, rng = make_rule(name, 3, RuleOptions()), np.random.default_rng(0)
    for _ in range(20):
        rewards = rng.gamma(2.0, size=(16, 3))
        rewards[:, 2] = np.nan
        g = rng.normal(size=(3, 5)) * [[1.0], [2.0], [0.0]]
        rule.observe(Observation(rewards=rewards, group=4, gram=g @ g.T, square_norm=2.0, present=(True, True, False)))
    if name == "uncertainty":  # its weights are exp(-s): only s stays
        assert rule.log_variances[2] == 0
    else:
        assert rule.weights[2] == pytest.approx(1 / 3, abs=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"rate": -0.1},
        {"clip": 0.0},
        {"floor": 2.0},
        {"average": 1.0},
        {"eta": -1.0},
        {"mu": 0.0},
        {"warmup": -1},
        {"rate": float("nan")},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_out_of_range(options):
    with pytest.raises(TaijiError, match="out of range"):
        RuleOptions(**options)


def test_a_preference_is_refused_where_nobody_reads_it():
    for name, rule in RULES.items():
        if rule.steered:
            make_rule(name, 2, RuleOptions(preference=(2.0, 1.0)))
        else:
            with pytest.raises(TaijiError, match="does not support a preference"):
                make_rule(name, 2, RuleOptions(preference=(2.0, 1.0)))


def test_popo_light_within_the_group_does_not_see_differences_between_prompts(caplog):
    rewards = np.array([[1.0, 1.0], [1.2, 2.0], [10.0, 1.0], [12.0, 2.0]])  # the first varies between prompts
    batch = make_rule("popo-light", 2, RuleOptions()).observe(Observation(rewards=rewards, group=2)).weights
    within = make_rule("popo-light", 2, RuleOptions(statistics="group"))
    found = within.observe(Observation(rewards=rewards, group=2)).weights
    exact = np.array([np.mean([0.1 / 1.1, 1.0 / 11.0]), 0.5 / 1.5])
    assert found == pytest.approx(exact / exact.sum(), rel=1e-6) and batch[0] > 0.6 > 0.3 > found[0]
    assert not caplog.text


def test_a_centred_reward_under_popo_light_is_told_once(caplog):
    rewards = np.random.default_rng(0).normal(size=(64, 2)) + np.array([9.0, 0.0])
    rule = make_rule("popo-light", 2, RuleOptions())
    for _ in range(3):
        rule.observe(Observation(rewards=rewards, group=4))
    assert caplog.text.count("Reward 1 has values on both sides") == 1 and "Reward 0" not in caplog.text


def test_a_jump_of_the_raw_update_is_told(caplog):
    rule = make_rule("popo", 2, RuleOptions(mode="paper"))
    rule.observe(Observation(gram=np.diag([0.5, 0.4])))
    assert not caplog.text
    rule.observe(Observation(gram=np.diag([50.0, 1.0])))
    assert "lower popo_eta" in caplog.text


def test_feedback_raises_what_fell():
    rule = make_rule("feedback", 3, RuleOptions(rate=0.1))
    rule.observe(Observation(indicators=np.array([0.6, 0.6, 0.6])))
    np.testing.assert_allclose(rule.weights, 1 / 3)
    rule.observe(Observation(indicators=np.array([0.5, 0.6, 0.7])))
    expected = np.exp([0.1, 0.0, -0.1])
    np.testing.assert_allclose(rule.weights, expected / expected.sum(), rtol=1e-12)
    other = make_rule("feedback", 3, RuleOptions(rate=0.1))
    other.load(rule.state())
    for one in (rule, other):
        one.observe(Observation(rewards=np.array([[0.6, 0.6, np.nan], [0.6, 0.6, np.nan]]), group=2))
    np.testing.assert_allclose(rule.weights, other.weights)
    assert rule.weights[0] < expected[0] / expected.sum()
