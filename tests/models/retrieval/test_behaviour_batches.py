"""Masked batches hold every history once, newest first, and no masked item; behaviours lie as the history does."""

import numpy as np
import polars as pl

from taiji.data.history import History
from taiji.models.retrieval.behaviour_batches import Histories, behaviours_of, held_out

OFFSETS = np.array([0, 4, 4, 5, 11])
ITEMS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5])
TOLD = np.array([1, 2, 1, 1, 2, 1, 1, 2, 2, 1, 1])


def histories(length=4):
    return Histories(ITEMS, TOLD, OFFSETS[:-1], OFFSETS[1:], length)


def test_histories_are_cut_newest_first():
    items, told = histories().padded(np.array([3, 0, 2]))
    assert items.tolist() == [[6, 4, 6, 7], [2, 5, 2, 4], [6, 0, 0, 0]]
    assert told.tolist() == [[1, 1, 2, 2], [1, 1, 2, 1], [2, 0, 0, 0]]


def test_a_batch_masks_its_targets_and_nothing_else():
    random = np.random.default_rng(0)
    for _ in range(20):
        (batch,) = histories().epoch(8, 0.3, 0.5, 99, random)
        assert batch.items.shape == (2, 4)  # one interaction is not a history
        flat, original = batch.items.flatten(), np.sort(histories().padded(np.array([0, 3]))[0], axis=None)
        assert (flat[batch.places] == 99).all() and (flat == 99).sum() == len(batch.places)
        assert (batch.items == 99).any(axis=1).all()
        flat[batch.places] = batch.targets + 1
        np.testing.assert_array_equal(np.sort(flat), original)
        assert not batch.hidden[batch.behaviours == 0].any()


def test_an_epoch_holds_every_history_once():
    count, random = 200, np.random.default_rng(0)
    ends = np.cumsum(np.arange(count) % 7)
    starts = np.concatenate([[0], ends[:-1]])
    data = Histories(np.repeat(np.arange(count), ends - starts), np.ones(ends[-1], int), starts, ends, 5)
    found = []
    for batch in data.epoch(16, 0.5, 0.0, 999, random):
        flat = batch.items.flatten()
        flat[batch.places] = batch.targets + 1
        found += flat.reshape(batch.items.shape)[:, 0].tolist()
    assert sorted(found) == (data.users + 1).tolist()


def test_behaviours_lie_as_the_history_does():
    events = pl.DataFrame(
        {
            "user": [1, 0, 1, 0, 1],
            "item": [5, 6, 7, 8, 9],
            "time": [1, 2, 3, 4, 5],
            "click": [1, 1, 0, 1, 1],
            "behaviour": ["buy", None, "buy", "view", "other"],
        }
    )
    history = History.from_events(events, 2)
    found = behaviours_of(events, "behaviour", ["buy", "view"], history)
    assert history.items.tolist() == [6, 8, 5, 9] and found.items.tolist() == [3, 2, 1, 3]
    np.testing.assert_array_equal(found.offsets, history.offsets)


def test_what_validates_ends_at_the_last_target_and_has_a_past():
    history = History(OFFSETS, ITEMS, np.arange(len(ITEMS)))
    users, ends = held_out(history, TOLD, 2, 10, np.random.default_rng(0))
    assert users.tolist() == [0, 3] and ends.tolist() == [1, 4, 5, 8]
    some, _ = held_out(history, TOLD, 1, 1, np.random.default_rng(0))
    assert len(some) == 1
