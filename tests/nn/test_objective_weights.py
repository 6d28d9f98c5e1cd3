"""Exact tests of the weight functions (float64)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taiji.nn import objective_weights as w

FAST = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**31)


def random_gram(seed: int, count: int, size: int = 7) -> np.ndarray:
    g = np.random.default_rng(seed).normal(size=(count, size))
    return g @ g.T


@FAST
@given(seeds)
def test_two_rewards_indicator_difference_is_difference_of_squared_norms(seed):
    gram = random_gram(seed, 2)
    i = w.indicator(gram)
    assert i[0] - i[1] == pytest.approx(gram[0, 0] - gram[1, 1], rel=1e-12, abs=1e-12)


@FAST
@given(seeds, st.floats(0.05, 0.95))
def test_two_unit_gradients_or_no_diagonal_freeze_the_weights(seed, start):
    gram = random_gram(seed, 2)
    before = np.log([start, 1 - start])
    norm = np.sqrt(np.diag(gram))
    unit = gram / np.outer(norm, norm)
    off = gram - np.diag(np.diag(gram))
    for frozen in (unit, off):
        assert np.allclose(w.paper_step(before, w.indicator(frozen), 3.0), before, atol=1e-14)
        assert np.allclose(w.robust_step(before, w.indicator(frozen), 1.0, floor=0.0), before, atol=1e-14)


@FAST
@given(seeds, st.integers(2, 6), st.floats(0.01, 2.0))
def test_paper_step_is_the_closed_form_of_the_exponentiated_gradient(seed, count, rate):
    rng = np.random.default_rng(seed)
    start, i = rng.dirichlet(np.ones(count)), rng.normal(size=count)
    steps = 4
    log = np.log(start)
    for _ in range(steps):
        log = w.paper_step(log, i, rate)
    closed = start * np.exp(rate * steps * i)
    assert np.allclose(np.exp(log), closed / closed.sum(), rtol=1e-12)


@FAST
@given(seeds, st.integers(2, 6))
def test_every_update_stays_on_the_simplex_and_is_permutation_equivariant(seed, count):
    rng = np.random.default_rng(seed)
    gram, log = random_gram(seed, count), np.log(rng.dirichlet(np.ones(count)))
    rewards = rng.gamma(2.0, size=(24, count))
    order = rng.permutation(count)
    preference = rng.dirichlet(np.ones(count)) + 0.01
    cases = {
        "paper": lambda g, log, r, p: np.exp(w.paper_step(log, w.indicator(g, p), 0.1)),
        "robust": lambda g, log, r, p: np.exp(w.robust_step(log, w.indicator(g, p), np.trace(g) / count, preference=p)),
        "light": lambda g, log, r, p: w.coefficient_of_variation(r, np.exp(log)),
        "covariance": lambda g, log, r, p: np.exp(w.paper_step(log, w.indicator(w.reward_covariance(r, 4), p), 0.1)),
        "min_norm": lambda g, log, r, p: w.min_norm(g),
    }
    for name, rule in cases.items():
        plain = rule(gram, log, rewards, preference)
        moved = rule(gram[np.ix_(order, order)], log[order], rewards[:, order], preference[order])
        assert plain.sum() == pytest.approx(1, abs=1e-12) and plain.min() >= 0, name
        assert np.allclose(moved, plain[order], atol=1e-9), name


def test_robust_step_moves_nothing_without_a_gradient_and_keeps_the_floor():
    log = np.log([0.7, 0.3])
    assert np.array_equal(w.robust_step(log, [0.0, 0.0], 0.0), log)
    for _ in range(500):
        log = w.robust_step(log, [5.0, -5.0], 1.0, floor=0.05)
    assert np.exp(log).sum() == pytest.approx(1) and np.exp(log)[1] >= 0.025
    assert (
        np.abs(w.robust_step(np.log([0.5, 0.5]), [1e9, -1e9], 1.0, clip=0.2, floor=0.0) - np.log([0.5, 0.5])).max()
        < 0.4
    )


def test_robust_step_ignores_a_common_shift_of_the_indicators():
    log = np.log([0.2, 0.3, 0.5])
    plain = w.robust_step(log, [1.0, 2.0, -1.0], 1.5)
    assert np.allclose(w.robust_step(log, [101.0, 102.0, 99.0], 1.5), plain, atol=1e-12)


def test_preference_weights_the_reference():
    gram = random_gram(3, 3)
    p = np.array([0.2, 0.3, 0.5])
    assert np.allclose(w.indicator(gram, p * 7), 3 * gram @ p)
    assert np.allclose(w.indicator(gram, [1, 1, 1]), w.indicator(gram))


def test_coefficient_of_variation():
    rewards = np.array([[1.0, 10.0], [3.0, 10.0], [1.0, 10.0], [3.0, 10.0]])
    assert np.array_equal(w.coefficient_of_variation(rewards, [0.4, 0.6]), [1.0, 0.0])
    assert np.array_equal(w.coefficient_of_variation(np.ones((4, 2)), [0.4, 0.6]), [0.4, 0.6])
    rng = np.random.default_rng(0)
    varied = rng.gamma(2.0, size=(50, 3))
    plain = w.coefficient_of_variation(varied, w.uniform(3))
    assert np.allclose(w.coefficient_of_variation(varied * [2.0, 5.0, 0.1], w.uniform(3)), plain, atol=1e-6), (
        "scale-invariant"
    )
    assert not np.allclose(
        w.coefficient_of_variation(varied + np.array([1.0, 0.0, 0.0]), w.uniform(3)), plain, atol=1e-2
    ), "not shift-invariant"
    varied[::2, 0] = np.nan
    deviation, mean = np.nanstd(varied, axis=0), np.nanmean(varied, axis=0)
    assert np.allclose(
        w.coefficient_of_variation(varied, w.uniform(3)), deviation / mean / (deviation / mean).sum(), atol=1e-6
    )


def test_reward_covariance_matches_numpy_and_leaves_out_nan():
    rng = np.random.default_rng(1)
    rewards = rng.normal(size=(20, 3))
    expected = np.mean([np.cov(block.T) for block in rewards.reshape(5, 4, 3)], axis=0)
    assert np.allclose(w.reward_covariance(rewards, 4), expected, atol=1e-12)
    rewards[:4, 1] = np.nan
    partial = w.reward_covariance(rewards, 4)
    assert np.allclose(partial[1, 1], np.mean([np.cov(block.T)[1, 1] for block in rewards.reshape(5, 4, 3)[1:]]))
    assert np.isfinite(partial).all()


def test_min_norm_closed_form_for_two_and_stationary_point_for_three():
    g = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert np.allclose(w.min_norm(g @ g.T), [0.2, 0.8])
    dominated = np.array([[3.0, 0.0], [1.0, 0.0]])
    assert np.allclose(w.min_norm(dominated @ dominated.T), [0.0, 1.0])
    angles = np.array([0, 2 * np.pi / 3, 4 * np.pi / 3])
    g = np.c_[np.cos(angles), np.sin(angles)]
    weights = w.min_norm(g @ g.T)
    assert np.linalg.norm(weights @ g) < 1e-9
    with pytest.raises(ValueError):
        w.min_norm(np.eye(13))


@FAST
@given(seeds, st.integers(2, 5))
def test_min_norm_beats_random_points_of_the_simplex(seed, count):
    gram = random_gram(seed, count, 3)
    weights = w.min_norm(gram)
    others = np.random.default_rng(seed).dirichlet(np.ones(count), size=100)
    assert weights @ gram @ weights <= np.einsum("ni,ij,nj->n", others, gram, others).min() + 1e-9


def test_peers_closed_forms():
    equal = w.dynamic_average([1.0, 1.0], [1.0, 1.0])
    assert np.allclose(equal, 0.5)
    assert w.dynamic_average([1.0, 1.0], [2.0, 1.0])[0] < 0.5, "a reward that grows fast needs less weight"
    s = np.zeros(2)
    for _ in range(4000):
        s = w.uncertainty_step(s, [0.5, 2.0], 0.05)
    assert np.allclose(np.exp(-s), [2.0, 0.5], rtol=1e-6), "fixed point: precision = 1 / loss"


def test_min_norm_at_any_scale_against_a_quadratic_programme():
    from scipy.optimize import nnls

    rng = np.random.default_rng(0)
    for _ in range(200):
        count = int(rng.integers(2, 6))
        g = rng.normal(size=(count, int(rng.integers(1, 7)))) * rng.uniform(0.1, 3, size=(count, 1))
        system = np.vstack([g.T, 1e4 * np.ones(count)])
        oracle = nnls(system, np.append(np.zeros(g.shape[1]), 1e4), maxiter=1000)[0]
        oracle /= oracle.sum()
        scaled = 10.0 ** rng.uniform(-10, 10) * g
        weights = w.min_norm(scaled @ scaled.T)
        assert weights.sum() == pytest.approx(1) and weights.min() >= 0
        assert weights @ g @ g.T @ weights <= oracle @ g @ g.T @ oracle + 1e-9
    assert np.array_equal(w.min_norm(np.zeros((3, 3))), w.uniform(3))
    with pytest.raises(ValueError, match="finite"):
        w.min_norm(np.full((2, 2), np.nan))


class Quadratics:
    """L_i = a_i / 2 |theta - c_i|^2 with theta at its equilibrium for the weights."""

    def __init__(self, curvature, centres):
        self.curvature, self.centres = np.asarray(curvature), np.asarray(centres)

    def theta(self, weights):
        pull = weights * self.curvature
        return pull @ self.centres / pull.sum()

    def gradients(self, weights):
        return self.curvature[:, None] * (self.theta(weights) - self.centres)

    def flow(self, weights, preference):
        """d w / dt of the exponentiated gradient in continuous time."""
        g = self.gradients(weights)
        i = w.indicator(g @ g.T, preference)
        return weights * (i - weights @ i)


@FAST
@given(seeds, st.integers(2, 6))
def test_the_divergence_from_the_preference_falls_at_equilibrium(seed, count):
    """d/dt KL(p | w) = -K |sum_k p_k g_k|^2 for any number of rewards, so the approach is monotone."""
    rng = np.random.default_rng(seed)
    problem = Quadratics(rng.uniform(0.5, 3, count), rng.normal(size=(count, 4)))
    p, weights = rng.dirichlet(np.ones(count)), rng.dirichlet(np.ones(count)).clip(1e-3)
    weights /= weights.sum()
    slope = -(p / weights) @ problem.flow(weights, p)
    exact = -count * np.sum((p @ problem.gradients(weights)) ** 2)
    assert slope == pytest.approx(exact, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("dimensions", [2, 1], ids=["full-rank", "rank-deficient"])
def test_the_weights_reach_the_preference_only_with_rank_one_less_than_the_rewards(dimensions):
    """With three rewards in one dimension theta reaches the optimum, and the weights stop where they are."""
    centres = np.array([[0.0, 0.0], [1.0, 0.3], [0.2, 1.5]])[:, :dimensions]
    problem, p = Quadratics([1.0, 2.0, 4.0], centres), np.full(3, 1 / 3)
    weights = np.array([0.05, 0.15, 0.8])
    divergence = []
    for _ in range(20_000):
        weights = np.exp(w.log_normalised(np.log(weights) + 0.02 * problem.flow(weights, p) / weights))
        divergence.append(float(p @ np.log(p / weights)))
    assert (np.diff(divergence) <= 1e-12).all()
    assert np.abs(problem.theta(weights) - problem.theta(p)).max() < 1e-6
    distance = np.abs(weights - p).max()
    assert distance < 1e-6 if dimensions == 2 else distance > 0.1
