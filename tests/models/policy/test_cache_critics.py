"""Critics in eigen coordinates are the coupled ones, exactly, where load does not move the states, and not where it
does."""

import numpy as np
import pytest

from taiji.core.errors import InputError
from taiji.models.policy.cache_critics import (
    CacheCritics,
    CacheCriticsSettings,
    coupled_values,
    eigen_values,
    fit_chain,
    load_basis,
    td_values,
)

DISCOUNT = 0.9
TWO = np.array([[0.8, 0.2], [0.3, 0.7]])
FOUR = np.array([[0.7, 0.3, 0, 0], [0.2, 0.5, 0.3, 0], [0, 0.3, 0.4, 0.3], [0, 0, 0.4, 0.6]])  # load moves by one level
CIRCLE = np.array([[0.1, 0.9, 0], [0, 0.1, 0.9], [0.9, 0, 0.1]])


def kernel(random, *shape):
    drawn = random.gamma(0.5, size=shape) + 1e-3
    return drawn / drawn.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("chain", [TWO, FOUR, np.tile([0.6, 0.4], (2, 1))], ids=["two", "four", "independent"])
@pytest.mark.parametrize("seed", range(3))
def test_identity(chain, seed):
    random = np.random.default_rng(seed)
    moves, rewards = kernel(random, 7, 7), random.normal(size=(len(chain), 7))
    exact = coupled_values(chain, moves, rewards, DISCOUNT)
    np.testing.assert_allclose(exact, rewards + DISCOUNT * chain @ exact @ moves.T, rtol=0, atol=1e-12)
    np.testing.assert_allclose(eigen_values(chain, moves, rewards, DISCOUNT), exact, rtol=0, atol=1e-12)


def test_its_error_where_load_moves_the_states():
    """The more the states' moves depend on the level, the more is lost by one kernel for all; a part of it at full
    dependence."""
    random = np.random.default_rng(0)
    common, own, rewards = kernel(random, 7, 7), kernel(random, 2, 7, 7), random.normal(size=(2, 7))
    share = np.linalg.matrix_power(TWO.T, 200)[:, 0]
    errors = []
    for dependence in (0.0, 0.1, 0.5, 1.0):
        moves = (1 - dependence) * common + dependence * own
        exact = coupled_values(TWO, moves, rewards, DISCOUNT)
        found = eigen_values(TWO, np.einsum("c,cst->st", share, moves), rewards, DISCOUNT)
        errors.append(np.sqrt(((found - exact) ** 2).mean()) / exact.std())
    assert errors[0] < 1e-12 and (np.diff(errors) > 0).all() and 0.01 < errors[-1] < 0.5


def test_levels_drawn_anew_leave_one_critic_with_a_future():
    basis = load_basis(np.tile([0.6, 0.4], (2, 1)))
    np.testing.assert_allclose(basis.values, [1, 0], atol=1e-12)
    np.testing.assert_allclose(load_basis(TWO).values, [1, 0.5], atol=1e-12)  # 1 and p00 + p11 − 1


@pytest.mark.parametrize(
    "chain",
    [CIRCLE, np.array([[1, 1], [0, 1.0]]), np.array([[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1]]), np.ones((2, 3)) / 3],
    ids=["complex", "sums", "defective", "shape"],
)
def test_a_chain_without_a_basis_is_said(chain):
    with pytest.raises(InputError):
        load_basis(chain)


def test_conditioning_is_checked():
    nearly = np.array([[0.5, 0.5, 0], [0, 0.5 + 1e-6, 0.5 - 1e-6], [0, 0, 1]])
    assert load_basis(FOUR).condition < 10
    with pytest.raises(InputError):
        load_basis(nearly)
    assert load_basis(nearly, most=1e12).condition > 1e5


def test_a_chain_is_fitted():
    random = np.random.default_rng(0)
    levels = [0]
    for _ in range(5000):
        levels.append(int(random.random() < TWO[levels[-1], 1]))
    found = fit_chain(np.array(levels[:-1]), np.array(levels[1:]), 2)
    np.testing.assert_allclose(found, TWO, atol=0.03)
    np.testing.assert_allclose(fit_chain(np.array([0]), np.array([1]), 2, prior=1.0), [[1 / 3, 2 / 3], [0.5, 0.5]])
    for wrong in (np.array([2]), np.array([-1])):
        with pytest.raises(InputError):
            fit_chain(np.array([0]), wrong, 2)


def walks(runs, steps, chain, moves, rewards, random):
    """Return states and levels (R, n + 1) and noisy rewards (R, n)."""
    states, levels = (np.zeros((runs, steps + 1), np.int64) for _ in range(2))
    for t in range(steps):
        for path, kernel_ in ((states, moves), (levels, chain)):
            drawn = random.random(runs)[:, None] > np.cumsum(kernel_[path[:, t]], axis=1)
            path[:, t + 1] = np.minimum(drawn.sum(axis=1), len(kernel_) - 1)
    noise = random.normal(size=(runs, steps))
    return states, levels, rewards[levels[:, :-1], states[:, :-1]] + noise


@pytest.fixture(scope="module")
def learnt():
    random = np.random.default_rng(3)
    moves, rewards = kernel(random, 6, 6), random.normal(size=(2, 6))
    states, levels, seen = walks(20, 4000, TWO, moves, rewards, random)
    exact = coupled_values(TWO, moves, rewards, DISCOUNT)
    found = {
        form: td_values(form, states, levels, seen, TWO, DISCOUNT, 0.05, 6) for form in ("eigen", "expected", "coupled")
    }
    return exact, found, (states, levels, seen)


def test_errors_of_td_in_order(learnt):
    """Root mean square errors in deviations of the values, over 20 seeds: eigen below expected below coupled, each by a
    paired interval."""
    exact, found, _ = learnt
    errors = {form: np.sqrt(((value - exact) ** 2).mean(axis=(1, 2))) / exact.std() for form, value in found.items()}
    for less, more in (("eigen", "expected"), ("expected", "coupled")):
        difference = errors[more] - errors[less]
        assert difference.mean() > 2 * difference.std(ddof=1) / np.sqrt(len(difference)), (less, more, errors)


def test_the_gain_is_in_learning_about_all_levels_at_once(learnt):
    """Updating every level in its own coordinates, by the chain's mean and the same reward means, gives the same
    values."""
    _, found, (states, levels, rewards) = learnt
    value, mean, seen = np.zeros((2, 6)), np.zeros((2, 6)), np.zeros((2, 6))
    for s, to, c, reward in zip(states[0], states[0][1:], levels[0], rewards[0]):
        seen[c, s] += 1
        mean[c, s] += (reward - mean[c, s]) / seen[c, s]
        value[:, s] += 0.05 * (mean[:, s] + DISCOUNT * TWO @ value[:, to] - value[:, s])
    np.testing.assert_allclose(found["eigen"][0], value, rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def critics():
    random = np.random.default_rng(1)
    moves, rewards = kernel(random, 5, 5), random.normal(size=(2, 5))
    states, levels, _ = walks(1, 20_000, TWO, moves, rewards, random)
    states, levels = states[0], levels[0]
    after = np.append(np.arange(1, len(states)), -1)
    settings = CacheCriticsSettings(discount=DISCOUNT, ridge=1e-9)
    made = CacheCritics(settings).fit(np.eye(5)[states], after, levels, rewards[levels, states])
    return made, moves, rewards


@pytest.mark.parametrize("chain", [TWO, np.array([[0.2, 0.8], [0.6, 0.4]])], ids=["the log's", "another hour's"])
def test_critics_of_a_log_find_the_values_under_any_chain(critics, chain):
    made, moves, rewards = critics
    exact = coupled_values(chain, moves, rewards, DISCOUNT)
    found = made.values(np.eye(5), chain).T
    assert np.sqrt(((found - exact) ** 2).mean()) < 0.05 * exact.std()


def test_critics_come_back_from_disk(critics, tmp_path):
    made = critics[0]
    made.save(tmp_path / "critics")
    loaded = CacheCritics.load(tmp_path / "critics")
    assert loaded.version == made.version
    np.testing.assert_array_equal(loaded.values(np.eye(5), TWO), made.values(np.eye(5), TWO))


@pytest.mark.parametrize("level", [[0, 0], [0, 2], [0, -1]], ids=["missing", "unknown", "negative"])
def test_levels_that_do_not_fit_are_said(level):
    with pytest.raises(InputError):
        CacheCritics().fit(np.eye(2), np.array([1, -1]), np.array(level), np.ones(2))
