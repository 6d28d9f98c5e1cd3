"""Retrieval by vectors: exactly over a small catalogue, by the index over a large one, nothing for who is unknown."""

from functools import partial

import numpy as np
import polars as pl
import pytest

from taiji.core.component import NO_ITEM, Requests
from taiji.data.availability import Availability
from taiji.data.dataset import Dataset
from taiji.data.schema import Tables
from taiji.models.retrieval import vector_retriever
from taiji.models.retrieval.settings import RetrieverSettings
from taiji.models.retrieval.top_items import top_items
from taiji.models.retrieval.vector_index import VectorIndex
from taiji.models.retrieval.vector_retriever import VectorRetriever
from taiji.testing import check_retriever

ITEMS, USERS, WIDTH = 3000, 40, 8


class Means(VectorRetriever):
    """Random vectors of items; a query is the mean of the user's recent ones."""

    def learn(self, history, seed, device):
        random = np.random.default_rng(seed)
        centres = random.normal(size=(30, WIDTH))
        noise = random.normal(size=(len(self.places), WIDTH))
        self.vectors = (centres[np.arange(len(self.places)) % 30] + 0.3 * noise).astype(np.float32)

    def weights(self):
        return {"vectors": self.vectors}

    def restore(self, weights, device):
        self.vectors = weights["vectors"]

    def queries(self, requests):
        items, _ = self.recent(requests)
        known = (items >= 0)[:, :, None]
        found = (self.vectors[items] * known).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        return found.astype(np.float32)


@pytest.fixture(scope="module")
def dataset():
    random = np.random.default_rng(0)
    user = np.repeat(np.arange(USERS), 12)
    events = pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in user],
            "item_id": [f"i{30 * n + k % 30:04}" for n, k in zip(random.integers(0, 100, len(user)), user)],
            "timestamp": pl.Series(1_600_000_000 + np.arange(len(user))).cast(pl.Int64) * 1_000_000,
            "click": 1,
        }
    ).with_columns(pl.from_epoch("timestamp", "us"))
    items = pl.DataFrame({"item_id": [f"i{n:04}" for n in range(ITEMS)], "title": [f"t{n}" for n in range(ITEMS)]})
    users = pl.DataFrame({"user_id": [*(f"u{n}" for n in range(USERS)), "nobody"]})
    return Dataset.from_tables(Tables(items=items, users=users, events=events, name="vectors"))


@pytest.fixture
def model(dataset, monkeypatch):
    """A fitted model whose catalogue counts as a large one."""
    monkeypatch.setattr(vector_retriever, "EXACT_BELOW", 1000)
    monkeypatch.setattr(vector_retriever, "VectorIndex", partial(VectorIndex, exact_below=1000, probes=0.4))
    return Means(RetrieverSettings(seen="drop")).fit(dataset)


def requests_of(dataset):
    users = dataset.users.filter(pl.col("user_id") != "nobody")["user"].to_numpy()
    return Requests(users, np.full(len(users), 1_700_000_000_000_000))


def test_contract_with_items_seen_and_items_gone(dataset, model):
    requests = requests_of(dataset)
    check_retriever(model, dataset, requests, k=15)
    first, end = np.full(ITEMS, -1), np.full(ITEMS, 2 * 10**15)
    first[::200] = 2 * 10**15
    model.availability = Availability(first, end)
    check_retriever(model, dataset, requests, k=15, available=lambda asked: model.availability.at(asked.time))
    assert not model.index.exact


def test_the_index_finds_nearly_what_scoring_everything_finds(dataset, model):
    requests = requests_of(dataset)
    found = model.retrieve(requests, 15)
    scores = model.scores(requests)
    rows, seen = model._hidden(requests)
    scores[rows, seen] = -np.inf
    right = top_items(scores, 15)
    shared = [len(set(a) & set(b)) / 15 for a, b in zip(found.items.tolist(), right.items.tolist())]
    assert np.mean(shared) > 0.95 and (found.items != NO_ITEM).all()
    np.testing.assert_allclose(found.scores[:, 0], right.scores[:, 0], rtol=1e-4)


def test_who_asks_for_much_or_has_seen_much_is_answered_exactly(dataset, model):
    requests, most = requests_of(dataset), ITEMS // vector_retriever.SHARE
    assert model.room(most) == most and model.room(most + 1) == -1
    first = np.full(ITEMS, -1)
    first[: most + 1] = 2 * 10**15  # more than the index may pass over
    model.availability = Availability(first, np.full(ITEMS, 3 * 10**15))
    items = model.retrieve(requests, 10).items
    scores = model.scores(requests)
    scores[:, : most + 1] = -np.inf
    rows, seen = model._hidden(requests)
    scores[rows, seen] = -np.inf
    np.testing.assert_array_equal(items, top_items(scores, 10).items)


def test_who_is_unknown_finds_nothing_in_a_small_and_in_a_large_catalogue(dataset, model, monkeypatch):
    nobody = dataset.users.filter(pl.col("user_id") == "nobody")["user"].to_numpy()
    asked = Requests(np.r_[nobody, 0], np.full(2, 1_700_000_000_000_000))
    for large in (True, False):
        monkeypatch.setattr(vector_retriever, "EXACT_BELOW", 1000 if large else ITEMS)
        found = model.retrieve(asked, 5).items
        assert (found[0] == NO_ITEM).all() and (found[1] != NO_ITEM).all()
