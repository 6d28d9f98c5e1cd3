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
    with pytest.raises(TaijiError, match="whole Gram matrix"):
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
    with pytest.raises(TaijiError, match="No such weighting"):
        make_rule("best", 2, RuleOptions())
    with pytest.raises(TaijiError, match="do not fit"):
        make_rule("popo", 2, RuleOptions(initial=(1.0, 0.0)))
    with pytest.raises(TaijiError, match="no longer finite"):
        make_rule("popo", 2, RuleOptions(mode="paper")).observe(Observation(gram=np.full((2, 2), np.inf)))
