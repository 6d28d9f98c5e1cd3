"""The cost-optimal threshold against brute force, a closed form of stalls, propensities, and what an empty pool
changes."""

import sys
from itertools import permutations, product

import numpy as np
import pytest

from taiji.core.component import Requests, Slate
from taiji.core.errors import ArtifactError, InputError, ResourceError
from taiji.models.rerank.device import (
    CACHED,
    HOURS,
    DeviceGate,
    DeviceGateSettings,
    PlayedVideos,
    decay,
    replacements,
    saved_device_gate,
)
from taiji.testing import check_component, check_deterministic, check_reranker, checkerboard
from taiji.world.mechanisms.network import stall_threshold

pytest.importorskip("lightgbm")
SETTINGS = DeviceGateSettings(numbers=("bitrate",), trees=20, leaves=8, least_rows=5, explore=0.0)
ITEMS = {"bitrate": np.random.default_rng(0).choice([0.6, 1.5, 4.0], 60)}
SPEEDS = {"poor": 0.5, "fair": 2.0, "good": 9.0}


def asked(count, seed=0, **columns):
    random = np.random.default_rng(seed)
    network = random.choice(["fair", "good", "poor"], count)
    return Requests(np.arange(count), np.arange(count) + 1000, {"network": network, **columns})


def candidates(count, seed=0, width=8):
    random = np.random.default_rng(seed)
    items = np.argsort(random.random((count, 60)), axis=1)[:, :width]
    return Slate(items, random.random(items.shape))


def stalls(requests, slate):
    """Return the closed form under a constant bandwidth and an empty buffer: 20 seconds, 2 of them at the start, 1 of
    patience."""
    bandwidth = np.array([SPEEDS[name] for name in requests.columns["network"]])[:, None]
    bitrate = ITEMS["bitrate"][slate.items]
    return (bandwidth < stall_threshold(bitrate, np.full(bitrate.shape, 20.0), np.zeros(bitrate.shape), 2.0, 1.0)) * 1.0


def played(seed=1, count=150):
    requests, slate = asked(count, seed), candidates(count, seed)
    return PlayedVideos(requests, slate, stalls(requests, slate), slate.scores)


@pytest.fixture(scope="module")
def gate():
    return DeviceGate(SETTINGS, ITEMS).fit(played())


def dyadic(random, shape, parts=64):
    """Return multiples of 1/64, whose sums and products are exact."""
    return random.integers(0, parts + 1, shape) / parts


def test_threshold_of_one_video_is_that_of_brute_force():
    random = np.random.default_rng(0)
    for _ in range(50):
        chance, cost = dyadic(random, 30), float(random.integers(1, 9))
        kept, other = random.integers(0, 9) / 8, random.integers(0, 9) / 8

        def total(threshold, chance=chance, cost=cost, kept=kept, other=other):
            return np.where(chance > threshold, other, kept - cost * chance).sum()

        best = max(total(threshold) for threshold in (-1.0, *chance))
        replaced = replacements((cost * chance - kept)[:, None], np.full((30, 1), other))[:, 0] >= 0
        assert total((kept - other) / cost) == best
        assert np.where(replaced, other, kept - cost * chance).sum() == best
        np.testing.assert_array_equal(replaced, chance > (kept - other) / cost)


def test_replaced_lists_are_the_best_of_all():
    random = np.random.default_rng(1)
    for length, pool in ((1, 1), (2, 3), (3, 2), (3, 4)):
        need, worth = dyadic(random, (6, length)) - 0.7, dyadic(random, (6, pool))
        need[0, 0], worth[1, 0] = -np.inf, -np.inf
        found = replacements(need, worth)
        for row in range(6):
            totals = []
            for chosen in product((False, True), repeat=length):
                places = np.flatnonzero(chosen)
                for items in permutations(range(pool), len(places)):
                    totals.append(need[row, places].sum() + worth[row, list(items)].sum())
            there = found[row] >= 0
            assert len(set(found[row, there])) == there.sum()
            assert need[row, there].sum() + worth[row, found[row, there]].sum() == max(totals)
            assert (np.diff(worth[row, found[row, there]]) <= 0).all()


def test_stalls_of_constant_bandwidth_are_told_from_the_rest(gate):
    requests, slate = asked(80, 5), candidates(80, 5)
    chance, value = gate.predict(gate.features(requests, slate))
    truth = stalls(requests, slate)
    assert 0 < truth.mean() < 1 and chance[truth == 1].min() > chance[truth == 0].max()
    assert np.corrcoef(value.ravel(), slate.scores.ravel())[0, 1] > 0.9


def test_contracts(gate):
    for length in (1, 4, 6):
        check_reranker(_everything_cached(gate), length=length)
    requests = asked(5, 2, **{CACHED: candidates(5, 2).items[:, 4:]})
    check_component(gate, checkerboard(), lambda made: made.rerank(requests, candidates(5, 2), 4).items)
    small = SETTINGS.model_copy(update={"trees": 3})
    check_deterministic(lambda seed: DeviceGate(small, ITEMS).fit(played(count=30), seed=seed))


class _everything_cached:
    """Re-ranker that is asked with a network and a pool of every second item."""

    def __init__(self, gate):
        self.gate = gate

    def rerank(self, requests, slate, length):
        pool = np.where(slate.items % 2 == 0, slate.items, -1)
        network = np.full(len(requests), "poor")
        return self.gate.rerank(
            Requests(requests.user, requests.time, {"network": network, CACHED: pool}), slate, length
        )


def test_an_empty_pool_changes_nothing(gate):
    requests, slate = asked(20, 3), candidates(20, 3)
    order = np.argsort(-slate.scores, axis=1)[:, :4]
    for pool in ({}, {CACHED: np.full((20, 3), -1)}, {CACHED: slate.items * 0 + 59}):
        pool = {name: np.where(np.isin(values, slate.items), -1, values) for name, values in pool.items()}
        shown = gate.rerank(asked(20, 3, **pool), slate, 4)
        np.testing.assert_array_equal(shown.items, slate.take(order).items)
        assert (shown.columns["propensity"] == 1).all() and not shown.columns["prefetched"].any()
    assert not gate.rerank(requests.take(slice(0, 0)), Slate(slate.items[:0], slate.scores[:0]), 4).items.size


def test_stale_videos_lose_and_no_cost_of_stalls_replaces_nothing_better(gate):
    slate = candidates(40, 4)
    slate = Slate(slate.items, np.sort(slate.scores, axis=1)[:, ::-1])
    pool = slate.items[:, 4:]

    def share(cost, hours):
        copied = DeviceGate(SETTINGS.model_copy(update={"stall_cost": cost}), ITEMS)
        copied.facts = gate.facts
        copied.restore(gate.weights())
        columns = {CACHED: pool, HOURS: np.full(pool.shape, hours)}
        return copied.rerank(asked(40, 4, **columns), slate, 4).columns["prefetched"].mean()

    assert share(1.0, 0.0) > share(1.0, 24.0) > share(0.3, 24.0)
    assert share(0.0, 24.0) == 0 and share(1.0, 1e6) < share(1.0, 0.0)
    np.testing.assert_allclose(decay(np.array([0.0, 24.0, 48.0]), 24.0), [1, 0.5, 0.25], rtol=0, atol=1e-15)


def test_exploration_keeps_as_often_as_it_says_and_notes_it(gate):
    rate = 0.25
    exploring = DeviceGate(SETTINGS.model_copy(update={"explore": rate}), ITEMS)
    exploring.facts = gate.facts
    exploring.restore(gate.weights())
    slate = candidates(1500, 6)
    requests = asked(1500, 6, **{CACHED: slate.items[:, 4:]})
    greedy, shown = (made.rerank(requests, slate, 4) for made in (gate, exploring))
    top = slate.take(np.argsort(-slate.scores, axis=1)[:, :4]).items
    would, chance = greedy.items != top, shown.columns["propensity"]
    kept = shown.items == top
    assert would.any() and (chance[~would] == 1).all() and kept[~would].all()
    np.testing.assert_array_equal(chance[would], np.where(kept[would], rate, 1 - rate))
    assert abs(kept[would].mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / would.sum())
    # weighed by what is noted, the videos that were kept stand for all that would have played
    truth = stalls(requests, Slate(top))
    estimate = (kept * truth / chance).sum() / truth.size
    assert abs(estimate - truth.mean()) < 0.05 < truth.mean() - (kept * truth).mean()


def test_learning_weighs_by_propensity():
    # of the videos that stall three of four were replaced and never seen to stall
    rows = played(7, 400)
    doubtful = ITEMS["bitrate"][rows.slate.items] == 1.5
    random = np.random.default_rng(0)
    stalled = np.where(doubtful, random.random(doubtful.shape) < 0.5, 0.0)
    seen = ~doubtful | (stalled == 0) | (random.random(doubtful.shape) < 0.25)
    chance = np.where(doubtful & (stalled == 1), 0.25, 1.0)
    labels = np.where(seen, stalled, np.nan)
    naive, weighed = (
        DeviceGate(SETTINGS, ITEMS).fit(PlayedVideos(rows.requests, rows.slate, labels, rows.values, propensity))
        for propensity in (None, chance)
    )
    features = weighed.features(rows.requests, rows.slate)
    assert abs(weighed.predict(features)[0][doubtful].mean() - 0.5) < 0.05
    assert naive.predict(features)[0][doubtful].mean() < 0.3


def test_what_cannot_be_learnt_from_is_refused(gate):
    rows = played(count=30)
    never = np.where(rows.stalled == 1, 0.0, 1.0)
    with pytest.raises(InputError, match="cannot be fitted"):
        DeviceGate(SETTINGS, ITEMS).fit(PlayedVideos(rows.requests, rows.slate, rows.stalled, rows.values, never))
    with pytest.raises(InputError, match="cannot be fitted"):
        DeviceGate(SETTINGS, ITEMS).fit(PlayedVideos(rows.requests, rows.slate, rows.stalled * np.nan, rows.values))
    with pytest.raises(InputError, match="played without a stall"):
        DeviceGate(SETTINGS, ITEMS).fit(PlayedVideos(rows.requests, rows.slate, rows.stalled * 0 + 1, rows.values))
    with pytest.raises(InputError, match="not finite"):
        gate.features(asked(2, bitrate=np.array([1.0, np.nan])), candidates(2))
    with pytest.raises(InputError, match="column cannot be read"):
        gate.features(Requests([0], [1]), candidates(1))
    with pytest.raises(InputError, match="pool"):
        gate.rerank(asked(2, **{CACHED: np.ones((2, 3), int), HOURS: np.zeros((2, 2))}), candidates(2), 4)


def test_a_missing_package_is_named_and_not_taken_for_damage(gate, tmp_path, monkeypatch):
    gate.save(tmp_path / "gate")
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    for ask in (lambda: DeviceGate.load(tmp_path / "gate"), lambda: DeviceGate(SETTINGS, ITEMS).fit(played(count=5))):
        with pytest.raises(ResourceError, match=r"taiji\[device\]"):
            ask()


def test_a_saved_gate_is_the_one_that_is_named(gate, tmp_path):
    gate.save(tmp_path / "gate")
    folder, vectors = str(tmp_path / "gate"), np.zeros((60, 2))
    made = saved_device_gate(vectors, folder=folder, version=gate.version)
    requests = asked(6, 8, **{CACHED: candidates(6, 8).items[:, 4:]})
    found, own = (part.rerank(requests, candidates(6, 8), 4).items for part in (made, gate))
    np.testing.assert_array_equal(found, own)
    for version, items in (("another", vectors), (gate.version, vectors[:9])):
        with pytest.raises(ArtifactError, match="has a different version"):
            saved_device_gate(items, folder=folder, version=version)


def test_inputs_per_candidate_belong_to_their_candidates_whatever_the_order():
    random = np.random.default_rng(3)
    rate = random.choice([0.1, 0.9], (200, 5))
    slate = Slate(np.argsort(random.random((200, 60)), axis=1)[:, :5], random.random((200, 5)))
    requests = Requests(np.arange(200), np.arange(200), {"bitrate": rate})
    gate = DeviceGate(SETTINGS.model_copy(update={"categories": ()}))
    gate.fit(PlayedVideos(requests, slate, (rate > 0.5) * 1.0, np.ones(rate.shape)))
    items, scores = np.array([[0, 1, 2, 3, 4]]), np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    rates = np.array([[0.1, 0.1, 0.1, 0.9, 0.1]])
    for order in (np.arange(5), np.arange(4, -1, -1), np.array([2, 0, 4, 1, 3])):
        columns = {"bitrate": rates[:, order], CACHED: np.array([[0]])}
        shown = gate.rerank(Requests([0], [0], columns), Slate(items[:, order], scores[:, order]), 4).items
        assert 3 not in shown and 0 in shown, "the video that stalls is replaced"
