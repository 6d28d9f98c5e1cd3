"""The next item of a rule that only the order tells; a seed decides everything; packing does not change the loss."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import torch

from taiji.core.component import Requests
from taiji.data.dataset import Dataset
from taiji.data.schema import Tables
from taiji.models.retrieval.sasrec import SASRec, SASRecSettings, Sequences
from taiji.testing import check_component, check_deterministic, check_retriever
from taiji.testing.datasets import requests_of

QUICK = SASRecSettings(
    width=16,
    heads=2,
    layers=1,
    dropout=0.0,
    epochs=12,
    batch=16,
    learning_rate=5e-3,
    history=8,
    seen="keep",
    negatives=0,
)
ITEMS = 12


@pytest.fixture(scope="module")
def circle() -> Dataset:
    """Users who step through a circle of items, forwards; popularity and co-occurrence say nothing about the next
    one."""
    random = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{(start + step) % ITEMS:02d}", datetime(2024, 1, 1) + timedelta(hours=step))
        for user, start in enumerate(random.integers(ITEMS, size=80))
        for step in range(int(random.integers(2, 9)))
    ]
    users, items, times = zip(*rows)
    names = sorted(set(items))
    return Dataset.from_tables(
        Tables(
            items=pl.DataFrame({"item_id": names, "title": names}),
            users=pl.DataFrame({"user_id": sorted(set(users))}),
            events=pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times, "click": 1}),
            name="circle",
        )
    )


@pytest.fixture(scope="module")
def fitted(circle):
    return SASRec(QUICK).fit(circle)


@pytest.mark.parametrize("negatives", [0, 30])
def test_learns_an_order(circle, negatives):
    model = SASRec(QUICK.model_copy(update={"negatives": negatives})).fit(circle)
    requests = requests_of(circle, 40)
    last = circle.history.before_batch(requests.user, requests.time, 1)[0][:, 0]
    found = model.retrieve(requests, 3).items
    assert (found[:, 0] == (last + 1) % ITEMS).mean() > 0.9


def test_contract(circle, fitted):
    check_retriever(fitted, circle)
    requests = requests_of(circle)
    check_component(fitted, circle, lambda model: model.retrieve(requests, 5).items)
    assert [check["epoch"] for check in fitted.facts["checks"]] == sorted(
        check["epoch"] for check in fitted.facts["checks"]
    )


def test_seed(circle):
    quick = QUICK.model_copy(update={"epochs": 1, "dropout": 0.2, "negatives": 8})
    check_deterministic(lambda seed: SASRec(quick).fit(circle, seed=seed, device="cpu"))


def test_reads_nothing_at_or_after_the_request(circle, fitted):
    requests = Requests(np.arange(20), np.full(20, int(circle.events["time"].min()) + 2 * 3_600_000_000))
    early = circle.events.filter(pl.col("time") < requests.time[0])
    other = circle.with_users(circle.users, early)
    bound = SASRec(QUICK)
    bound._bind(other, circle.items["item_id"])
    bound.keeps_seen = True
    bound.restore(fitted.weights(), "cpu")
    np.testing.assert_array_equal(bound.retrieve(requests, 5).items, fitted.retrieve(requests, 5).items)


def test_a_batch_holds_each_entry_with_the_next_one_as_target():
    items = np.array([3, 4, 5, 6, 9, 1, 2])
    data = Sequences(items, np.array([0, 4, 5]), np.array([4, 5, 7]), length=2)
    assert data.users.tolist() == [0, 2]  # the second user has one interaction and nothing to predict
    tokens, place, segment, flat, targets = data.batch(np.array([0, 2]))
    assert targets.tolist() == [5, 6, 2]
    assert tokens.ravel()[flat].tolist() == [5, 6, 2] and place.ravel()[flat].tolist() == [1, 0, 0]
    assert (segment.ravel()[flat] == [1, 1, 2]).all() and (segment > 0).sum() == 3


def test_encoding_many_equals_encoding_each(fitted):
    newest_first = np.array([[4, 3, -1, 2], [-1, -1, -1, -1], [7, -1, -1, -1], [1, 0, 11, 10]])
    together = fitted._encode(newest_first)
    assert (together[1] == 0).all()
    for row in (0, 2, 3):
        single = fitted._encode(newest_first[row : row + 1, newest_first[row] >= 0])
        np.testing.assert_allclose(together[row], single[0], atol=1e-5)
    with torch.no_grad():  # the state after the newest entry of a history given oldest first
        tokens = torch.tensor([[3, 4, 5]])
        expected = fitted.network(tokens, torch.tensor([[2, 1, 0]]), torch.ones(1, 3, dtype=torch.int64))[0, -1]
    np.testing.assert_allclose(together[0], expected.numpy(), atol=1e-5)
