"""The contract, an order that only a sequence model sees, exhaustive scores, items that come and go, and the
options."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from taiji.core.component import Requests
from taiji.core.errors import ConfigError, InputError
from taiji.data.availability import Availability
from taiji.data.dataset import Dataset
from taiji.data.schema import Tables
from taiji.models.codes.item_codes import ItemCodes
from taiji.models.retrieval import code_decoder
from taiji.models.retrieval.code_decoder import CodeDecoder, CodeDecoderSettings
from taiji.testing import check_component, check_deterministic, check_retriever
from taiji.testing.datasets import requests_of

ITEMS = 12
CODES = np.stack([np.arange(ITEMS) % 4, np.arange(ITEMS) // 4], axis=1)
QUICK = CodeDecoderSettings(
    width=32,
    layers=1,
    dropout=0.0,
    epochs=12,
    batch=8,
    learning_rate=1e-2,
    history=8,
    seen="keep",
    beam=ITEMS,
    valid_users=20,
    check_every=4,
)


@pytest.fixture(scope="module")
def circle() -> Dataset:
    """Users who step through a circle of items, forwards; popularity and co-occurrence say nothing about the next
    one."""
    random = np.random.default_rng(0)
    rows = [
        (f"u{user:02d}", f"i{(start + step) % ITEMS:02d}", datetime(2024, 1, 1) + timedelta(hours=step))
        for user, start in enumerate(random.integers(ITEMS, size=60))
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
    return CodeDecoder(QUICK, codes=CODES).fit(circle)


def right(model: CodeDecoder, circle: Dataset) -> float:
    """Return the share of requests whose first item is the next one of the circle."""
    requests = requests_of(circle, 60)
    items = circle.history.before_batch(requests.user, requests.time, 9)[0]
    requests, last = requests.take(items[:, 6] < 0), items[items[:, 6] < 0, 0]  # not longer than what it was trained on
    return float((model.retrieve(requests, 3).items[:, 0] == (last + 1) % ITEMS).mean())


OPTIONS = {
    "encoder-decoder": {"architecture": "encoder-decoder"},
    "a token per code": {"tokens": "codes"},
    "sampled softmax": {"negatives": 3},
    "all of the attention": {"query_key_norm": True, "gate": True, "short": 2, "experts": 3},
    "sequential heads": {"multi_token": True},
    "thinking": {"thinking": "latent", "clusters": 2},
    "long history and time": {"long_history": 4, "history": 4, "queries": 2, "time": True},
}


def test_learns_an_order_that_popularity_does_not_tell(circle, fitted):
    assert right(fitted, circle) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_learns_an_order(circle, name):
    quick = QUICK.model_dump() | {"epochs": 30, "valid_users": 60} | OPTIONS[name]
    model = CodeDecoder(CodeDecoderSettings.model_validate(quick), codes=CODES)
    assert right(model.fit(circle), circle) > 0.9


def test_contract(circle, fitted):
    check_retriever(fitted, circle)
    requests = requests_of(circle)
    check_component(fitted, circle, lambda model: model.retrieve(requests, 5).items)


def test_seed(circle):
    quick = QUICK.model_copy(update={"epochs": 1, "dropout": 0.2, "negatives": 3})
    check_deterministic(lambda seed: CodeDecoder(quick, codes=CODES).fit(circle, seed=seed, device="cpu"))


def test_a_beam_of_the_catalogue_finds_what_scoring_every_item_finds(circle, fitted):
    requests = requests_of(circle, 5)
    scores = fitted.scores(requests)
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1.0, atol=1e-5)  # every code has an item here
    slate = fitted.retrieve(requests, ITEMS)
    np.testing.assert_array_equal(slate.items, np.argsort(-scores, axis=1, kind="stable"))
    np.testing.assert_allclose(slate.scores, -np.sort(-scores, axis=1), atol=1e-6)


def test_blocks_of_requests_change_nothing(circle, fitted, monkeypatch):
    requests = requests_of(circle, 7)
    together, scores = fitted.retrieve(requests, 5).items, fitted.scores(requests)
    monkeypatch.setattr(code_decoder, "CELLS", 3 * ITEMS * max(fitted.trie.sizes))  # three requests at a time
    np.testing.assert_array_equal(fitted.retrieve(requests, 5).items, together)
    np.testing.assert_allclose(fitted.scores(requests), scores, atol=1e-5)


@pytest.mark.parametrize("seen", ["keep", "drop"])
@pytest.mark.parametrize("one_time", [True, False], ids=["one time", "many times"])
def test_only_available_items_under_churn(circle, fitted, seen, one_time):
    random, first = np.random.default_rng(1), int(circle.events["time"].min())
    model = fitted.bound_to(circle)
    model.keeps_seen = seen == "keep"
    model.settings = QUICK.model_copy(update={"beam": 3})
    decodes = 0
    for _ in range(12):
        start = first + random.integers(0, 12, size=ITEMS) * 3_600_000_000
        model.availability = Availability(start, start + random.integers(1, 6, size=ITEMS) * 3_600_000_000)
        users = np.arange(30)
        time = first + random.integers(0, 12, size=30) * 3_600_000_000
        requests = Requests(users, np.full(30, time[0]) if one_time else time)
        found = model.retrieve(requests, 3).items
        shown = model.availability.at(requests.time)
        if seen == "drop":
            past = circle.history.before_batch(users, requests.time, 9)[0]
            shown[np.arange(30)[:, None].repeat(9, axis=1)[past >= 0], past[past >= 0]] = False
        row, place = np.nonzero(found >= 0)
        assert shown[row, found[row, place]].all()
        assert ((found >= 0).sum(axis=1) == np.minimum(shown.sum(axis=1), 3)).all()  # a beam has no dead ends
        decodes += len(row)
    assert decodes > 100


def test_items_that_share_a_code_share_its_probability(circle):
    codes = CODES // [1, 2]  # the last codes 0 and 1 become one
    model = CodeDecoder(QUICK.model_copy(update={"collisions": "list", "epochs": 1}), codes=codes).fit(circle)
    assert model.item_codes.shape == (ITEMS, 2)
    scores = model.scores(requests_of(circle, 3))
    counts = np.bincount(circle.history.items, minlength=ITEMS) + 1
    for first, second in ((0, 4), (3, 7)):
        expected = np.log(counts[first] / counts[second])
        np.testing.assert_allclose(scores[:, first] - scores[:, second], expected, atol=1e-6)
    assert CodeDecoder(QUICK.model_copy(update={"epochs": 1}), codes=codes).fit(circle).item_codes.shape == (ITEMS, 3)


def test_an_item_that_nobody_took_can_be_retrieved(circle):
    vectors = np.random.default_rng(0).standard_normal((ITEMS, 4))
    rows = circle.events.filter(pl.col("item") != 5)
    quick = QUICK.model_copy(update={"epochs": 1, "coder_settings": {"levels": 2, "size": 4}})
    model = CodeDecoder(quick, vectors=vectors).fit(circle, rows)
    assert (model.retrieve(requests_of(circle), ITEMS).items == 5).any(axis=1).all()


def test_new_codes_bring_in_new_items_and_move_old_ones(circle, fitted):
    """Item 12 is new and has item 0's codes; items 1 and 2 have changed places."""
    items = pl.concat(
        [
            circle.items,
            circle.items.tail(1).with_columns(item_id=pl.lit("new"), item=pl.lit(12).cast(circle.items["item"].dtype)),
        ]
    )
    later = replace(circle, items=items)
    codes = np.concatenate([CODES, CODES[:1]])
    codes[[1, 2]] = codes[[2, 1]]
    moved = fitted.recoded(later, codes)
    requests = requests_of(circle, 40)
    past = circle.history.before_batch(requests.user, requests.time, 9)[0]
    requests = requests.take(~np.isin(past, [1, 2]).any(axis=1))  # whose own history reads as before
    old, new = fitted.scores(requests), moved.scores(requests)
    np.testing.assert_allclose(new[:, [2, 1, 3, 4]], old[:, [1, 2, 3, 4]], atol=1e-5)
    np.testing.assert_allclose(
        np.exp(new[:, 0]) + np.exp(new[:, 12]), np.exp(old[:, 0]), atol=1e-5
    )  # they share a leaf
    assert (moved.retrieve(requests, ITEMS).items == 12).any()
    with pytest.raises(InputError):
        fitted.recoded(later, codes[:, :1])


def test_codes_of_another_coder_are_an_error(circle):
    quick = QUICK.model_copy(update={"epochs": 1})
    model = CodeDecoder(quick, codes=ItemCodes(CODES, (5, 3), "one")).fit(circle)
    assert model.trie.sizes == (5, 3)  # codes that no item has yet can come later
    moved = CODES + np.array([1, 0])
    assert (model.recoded(circle, ItemCodes(moved, (5, 3), "one")).item_codes == moved).all()
    with pytest.raises(InputError) as error:
        model.recoded(circle, ItemCodes(moved, (5, 3), "two"))
    assert error.value.found == "two"


def test_what_does_not_fit_is_an_error(circle, fitted):
    with pytest.raises(InputError):
        CodeDecoder(QUICK, codes=CODES[:5]).fit(circle)
    with pytest.raises(ConfigError) as unknown:
        CodeDecoder(QUICK.model_copy(update={"coder_settings": {"depth": 2}})).fit(circle)
    assert unknown.value.where == "coder_settings.depth"


def test_the_level_that_tells_items_apart_is_added_to_new_codes(circle):
    codes = ItemCodes(CODES // [1, 2], (4, 2), "one")
    model = CodeDecoder(QUICK.model_copy(update={"epochs": 1}), codes=codes).fit(circle)
    assert model.trie.sizes == (4, 2, 2)
    np.testing.assert_array_equal(model.recoded(circle, codes).item_codes, model.item_codes)
    loved = replace(circle, events=circle.events)
    turned = -np.bincount(circle.history.items, minlength=ITEMS)
    found = model._told_apart(codes.table, turned, loved.items["item_id"])
    np.testing.assert_array_equal(found, model.item_codes, "a later popularity swaps no items that were learnt")
    crowded = model.recoded(circle, ItemCodes(np.zeros((ITEMS, 2), np.int64), (4, 2), "one"))
    assert crowded.item_codes[:, 2].max() == 1 and len(crowded.trie.leaf_offsets) == 3  # eleven of them share a leaf
    assert model.recoded(circle, CODES[:, :1].repeat(3, axis=1).clip(max=[3, 1, 1])).item_codes.shape == (ITEMS, 3)


def test_a_beam_too_narrow_is_doubled(circle, fitted):
    requests, narrow = requests_of(circle, 5), fitted.bound_to(circle)
    narrow.settings = QUICK.model_copy(update={"beam": 3})
    assert (narrow.retrieve(requests, 3).items >= 0).all() and (narrow.retrieve(requests, 5).items >= 0).all()
    np.testing.assert_array_equal(narrow.retrieve(requests, ITEMS).items, fitted.retrieve(requests, ITEMS).items)
