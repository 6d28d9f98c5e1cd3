"""Each promise of retrievers and coders, broken once."""

from dataclasses import replace

import numpy as np
import pytest

from taiji.core.component import NO_ITEM, Slate
from taiji.testing import check_coder, check_retriever, checkerboard


class Own:
    """Items of the user's own colour, the smallest first."""

    def __init__(self, items):
        self.n = items

    def retrieve(self, requests, k):
        scores = np.where((requests.user[:, None] + np.arange(self.n)) % 2 == 0, 1.0, 0.0) - np.arange(self.n) / 1000
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return Slate(order, np.take_along_axis(scores, order, axis=1))


def broken(change):
    class Broken(Own):
        def retrieve(self, requests, k):
            return change(super().retrieve(requests, k), requests, k)

    return Broken


def twice(slate, requests, k):
    items = slate.items.copy()
    items[:, 1] = items[:, 0]
    return replace(slate, items=items)


def outside(slate, requests, k):
    return replace(slate, items=slate.items + 100)


def gap(slate, requests, k):
    items = slate.items.copy()
    items[0, 0] = NO_ITEM
    return replace(slate, items=items)


def unordered(slate, requests, k):
    return slate.take(np.tile(np.arange(slate.items.shape[1])[::-1], (len(requests), 1)))


def together(slate, requests, k):
    return slate if len(requests) > 1 else replace(slate, items=(slate.items + 2) % 20)


def more(slate, requests, k):
    return Slate(np.tile(np.arange(k + 1), (len(requests), 1)))


def otherwise(slate, requests, k):
    return slate if k == 5 else replace(slate, items=slate.items[:, ::-1])


CHANGES = [twice, outside, gap, unordered, together, more, otherwise]


def test_a_right_retriever_passes():
    board = checkerboard()
    check_retriever(Own(board.n_items), board)
    check_retriever(Own(board.n_items), board, available=lambda r: (r.user[:, None] + np.arange(20)) % 2 == 0, k=5)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_broken_promise_is_found(change):
    board = checkerboard()
    with pytest.raises(AssertionError):
        check_retriever(broken(change)(board.n_items), board)


class Prophet(Own):
    """Puts the user's next item first."""

    def __init__(self, dataset, limit=1):
        super().__init__(dataset.n_items)
        self.dataset, self.limit = dataset, limit

    def bound_to(self, users):
        return Prophet(users, self.limit)

    def retrieve(self, requests, k):
        scores = np.tile(-np.arange(self.n) / 1000, (len(requests), 1))
        items, _ = self.dataset.history.after_batch(requests.user, requests.time, self.limit)
        for row, item in zip(scores, items):
            row[item[item >= 0]] += 1
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return Slate(order, np.take_along_axis(scores, order, axis=1))


def test_a_look_at_the_future_is_found():
    board = checkerboard()
    check_retriever(Prophet(board, limit=0), board)
    with pytest.raises(AssertionError, match="events from the request's time on were removed"):
        check_retriever(Prophet(board), board)


def test_an_unavailable_item_is_found():
    board = checkerboard()
    with pytest.raises(AssertionError, match="unavailable"):
        check_retriever(Own(board.n_items), board, available=lambda r: np.arange(20) != r.user[:, None])


class Codes:
    """Two digits of the item's number, the last dropped for ``lossy`` items."""

    def __init__(self, n, lossy=0, told=None):
        self.table = np.stack([np.arange(n) // 4, np.arange(n) % 4], axis=1)
        self.table[:lossy, 1] = 0
        self.told = told

    def encode(self, items):
        return self.table[items]

    def decode(self, codes):
        return [np.flatnonzero((self.table == code).all(axis=1)) for code in codes]

    def quality(self):
        _, inverse, counts = np.unique(self.table, axis=0, return_inverse=True, return_counts=True)
        return {"collisions": float((counts[inverse.ravel()] > 1).mean()) if self.told is None else self.told}


def test_coders_are_checked_by_item():
    board = checkerboard()
    check_coder(Codes(board.n_items), board)
    check_coder(Codes(board.n_items, lossy=8), board)
    with pytest.raises(AssertionError, match="collisions"):
        check_coder(Codes(board.n_items, lossy=8, told=0.1), board)

    class Lost(Codes):
        def decode(self, codes):
            return [owners[1:] for owners in super().decode(codes)]

    with pytest.raises(AssertionError, match="not among"):
        check_coder(Lost(board.n_items), board)

    class Drifting(Codes):
        def encode(self, items):
            self.table = self.table + 1
            return super().encode(items)

    with pytest.raises(AssertionError, match="changed"):
        check_coder(Drifting(board.n_items), board)
