"""Bandwidth is a Markov chain; who stalls is decided by what can be loaded in time."""

from __future__ import annotations

import numpy as np
import pytest
from tests.world.small import coin_surprise, small, surprise

from taiji.world.log import run
from taiji.world.mechanisms.network import STATES, Network, stall_threshold
from taiji.world.policies import make_policy


def simulated(
    bandwidth: float, bitrate: float, duration: float, buffer: float, startup: float, patience: float
) -> bool:
    """Play second by second in small steps: True where it stalls."""
    loaded, waited, step = min(buffer, duration) * bitrate, 0.0, 0.001
    while loaded < startup * bitrate - 1e-9:
        loaded += bandwidth * step
        waited += step
        if waited > patience + 2 * step:
            return True
    loaded, played = min(buffer, duration) * bitrate, 0.0
    while played < duration:
        loaded += bandwidth * step
        played += step
        if played * bitrate > loaded + bitrate * 2 * step and loaded < duration * bitrate:
            return True
    return False


@pytest.mark.parametrize(
    "bitrate, duration, buffer",
    [(1.5, 8, 0), (1.5, 8, 3), (4, 12, 6), (0.6, 5, 9)],
    ids=["none", "little", "some", "all"],
)
def test_the_threshold_is_that_of_playing_it(bitrate, duration, buffer):
    threshold = float(stall_threshold(np.array(bitrate), np.array(duration), np.array(buffer), 4.0, 2.0))
    for factor, stalls in ((0.98, True), (1.02, False)):
        if threshold > 0:
            assert simulated(threshold * factor, bitrate, duration, buffer, 4.0, 2.0) == stalls
    if buffer >= duration:
        assert threshold == 0 and not simulated(0.01, bitrate, duration, buffer, 4.0, 2.0)


def test_states_have_their_shares_and_last():
    world = small("weak-network", users=1500).twin("network")
    network = world.find(Network)
    first = network.state.copy()
    assert surprise(np.bincount(first, minlength=3), 1500 * np.array([0.2, 0.4, 0.4])) < 4
    stays, moves, counts = 0, 0, np.zeros(3)
    last = {}
    for exposure in run(world, make_policy("random", world), 1):
        states = (exposure.context["network"][:, None] == np.array(STATES)).argmax(axis=1)
        counts += np.bincount(states, minlength=3)
        for user, state in zip(exposure.user.tolist(), states.tolist()):
            if user in last:
                stays += last[user] == state
                moves += 1
            last[user] = state
    same = 0.8 + 0.2 * (0.2**2 + 0.4**2 + 0.4**2)
    assert coin_surprise(np.arange(moves) < stays, np.full(moves, same)) < 4
    assert abs(counts / counts.sum() - [0.2, 0.4, 0.4]).max() < 0.05


def test_prefetched_items_never_stall_and_a_poor_network_does():
    world = small("weak-network", users=200)
    users, lists = np.arange(200), np.tile(np.arange(5), (200, 1))
    network = world.find(Network)
    plain = world.truth.expect(users, lists)["stall"]
    assert (world.truth.expect(users, lists, display={"prefetched": np.ones((200, 5))})["stall"] == 0).all()
    by_state = [plain[network.state == state].mean() for state in range(3)]
    assert by_state[0] > by_state[1] > by_state[2]
    watch, harmless = (w.truth.expect(users, lists)["watch"] for w in (world, world.twin("network")))
    assert (watch <= harmless).all() and watch.mean() < 0.97 * harmless.mean()
