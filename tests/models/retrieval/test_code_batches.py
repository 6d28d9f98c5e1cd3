"""Every user once, in windows that end where training ends."""

import numpy as np

from taiji.data.history import History
from taiji.models.retrieval.code_batches import Windows, held_out

ITEMS = np.array([3, 4, 5, 6, 9, 1, 2])
HISTORY = History(np.array([0, 4, 5, 5, 7]), ITEMS, np.arange(7))


def test_windows():
    windows = Windows(HISTORY, np.array([4, 5, 5, 6]), length=2)
    assert windows.users.tolist() == [0, 1, 3]
    batch = windows.batch(np.array([0, 3]))
    assert batch.items.tolist() == [[4, 5, 6], [1, -1, -1]]  # two are read, the third is the last target
    assert batch.places.tolist() == [[1, 2, 3], [5, -1, -1]]


def test_an_epoch_has_every_user_once_and_rows_of_similar_length():
    random = np.random.default_rng(0)
    lengths = random.integers(0, 20, size=300)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    history = History(offsets, np.arange(offsets[-1]), np.arange(offsets[-1]))
    windows = Windows(history, offsets[1:], length=50)
    batches = list(windows.epoch(16, random))
    users = np.concatenate([batch.users for batch in batches])
    assert sorted(users.tolist()) == np.flatnonzero(lengths > 0).tolist()
    padded = np.mean([(batch.items < 0).mean() for batch in batches])
    assert padded < 0.15


def test_held_out_users_have_something_before_it():
    assert held_out(HISTORY, 10, np.random.default_rng(0)).tolist() == [0, 3]
    assert len(held_out(HISTORY, 1, np.random.default_rng(0))) == 1
