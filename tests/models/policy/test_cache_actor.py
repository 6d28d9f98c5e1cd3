import numpy as np
import pytest

from taiji.core.errors import InputError
from taiji.models.policy.cache_actor import CacheActor, CacheActorSettings
from taiji.models.policy.cache_critics import coupled_values
from taiji.models.policy.session_returns import NO_ROW

CHAIN = np.array([[0.8, 0.2], [0.4, 0.6]])
MOVES = np.array([[0, 1], [2, 0], [2, 1]])
"""State after an action in a state."""
REWARDS = np.array([[[0.3, 0.0], [0.1, 0.0], [1.0, 0.0]], [[0.2, 0.0], [0.1, 0.0], [0.4, 0.0]]])
"""By level, state and action: action 1 costs what is at hand, and leads from 0 by way of 1 to the state that pays."""
DISCOUNT = 0.9


def log():
    """Every level, state and action once, each followed by a row of its next state; the level ahead is left to the
    chain."""
    rows = [(c, s, a) for c in range(2) for s in range(3) for a in range(2)]
    level, state, action = (np.array(column) for column in zip(*rows))
    where = {row: number for number, row in enumerate(rows)}
    after = np.array([where[c, MOVES[s, a], 0] for c, s, a in rows])
    return np.eye(3)[state], action, after, level, REWARDS[level, state, action]


def fitted(**changed):
    settings = {"discount": DISCOUNT, "ridge": 1e-9} | changed
    return CacheActor(CacheActorSettings(**settings)).fit(*log(), CHAIN)


@pytest.mark.parametrize("form", ["eigen", "expected"])
def test_the_critics_are_the_exact_values_of_the_policy_that_they_train(form):
    actor = fitted(form=form)
    policy = actor.act(np.eye(3))
    moves, each = np.eye(3)[MOVES[np.arange(3), policy]], np.arange(3)
    exact = coupled_values(CHAIN, moves, REWARDS[:, each, policy], DISCOUNT)
    assert np.allclose(actor.values(np.eye(3))[:, each, policy], exact, atol=1e-5)
    assert (policy == actor.values(np.eye(3))[0].argmax(axis=1)).all()


def test_it_gives_up_what_is_at_hand_for_what_pays_later_and_only_if_that_counts():
    assert fitted().act(np.eye(3)).tolist() == [1, 0, 0]
    assert fitted(discount=0.0).act(np.eye(3)).tolist() == [0, 0, 0]


def test_in_eigen_coordinates_it_is_the_expected_form_applied_to_all_levels_at_once():
    assert np.allclose(fitted().critics, fitted(form="expected").critics, atol=1e-5)


def test_where_the_level_never_stays_what_it_is_the_form_that_looks_at_the_level_that_came_is_told_something_else():
    coupled = fitted(form="coupled")  # in this log the level stays
    assert np.abs(coupled.critics - fitted().critics).max() > 0.01


def test_only_the_eigen_form_needs_real_eigenvectors():
    turning = np.roll(np.eye(3), 1, axis=1)  # each level follows another: its eigenvalues are complex
    random = np.random.default_rng(0)
    states, (action, level) = random.normal(size=(60, 2)), (random.integers(k, size=60) for k in (2, 3))
    rows = states, action, np.full(60, NO_ROW), level, action * states[:, 0]
    for form in ("expected", "coupled"):
        critics = CacheActor(CacheActorSettings(levels=3, form=form)).fit(*rows, turning).critics
        assert np.isfinite(critics).all()
    with pytest.raises(InputError):
        CacheActor(CacheActorSettings(levels=3)).fit(*rows, turning)


def test_no_more_requests_than_the_share_take_the_last_action():
    random = np.random.default_rng(0)
    states = np.concatenate([random.normal(size=(400, 3)), np.ones((400, 1))], axis=1)
    action, level = random.integers(2, size=(2, 400))
    rewards = action * (1 + states[:, 0])
    actor = CacheActor(CacheActorSettings(share=0.25)).fit(states, action, np.full(400, NO_ROW), level, rewards, CHAIN)
    assert actor.act(states).mean() == pytest.approx(0.25, abs=0.005)
    assert states[actor.act(states) == 1, 0].min() > np.median(states[:, 0])  # those to whom it matters most


def test_it_survives_saving(tmp_path):
    actor = fitted(share=0.5)
    actor.save(tmp_path / "actor")
    assert (CacheActor.load(tmp_path / "actor").act(np.eye(3)) == actor.act(np.eye(3))).all()


@pytest.mark.parametrize(("column", "value"), [(1, 0), (1, 2), (3, 0)], ids=["never taken", "beyond", "one level"])
def test_what_was_never_tried_is_an_error(column, value):
    rows = list(log())
    rows[column] = np.full(12, value)
    with pytest.raises(InputError):
        CacheActor().fit(*rows, CHAIN)
