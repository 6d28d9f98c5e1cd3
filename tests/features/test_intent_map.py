"""The map finds a turned space, stays the identity where nothing is to be learnt, and is versioned."""

import numpy as np
import pytest

from taiji.core.errors import InputError
from taiji.features.intent_map import IntentMap, IntentMapSettings

SETTINGS = IntentMapSettings(penalty=1e-4, learning_rate=0.05, steps=40)


def unit(values):
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def rows_of(turned, count=80, seed=0):
    """Rows whose first intent is an item that came next, in a turned space, and whose second is noise."""
    random = np.random.default_rng(seed)
    items = unit(random.standard_normal((30, 6)))
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((6, 6)))[0]
    following = random.integers(0, 30, count)
    said = items[following] @ turn if turned else unit(random.standard_normal((count, 6)))
    intents = np.stack([said, unit(random.standard_normal((count, 6)))], axis=1)
    return intents, np.tile([0.9, 0.1], (count, 1)), items, [[place] for place in following]


def test_a_turned_space_is_turned_back():
    intents, weights, items, following = rows_of(True)
    made = IntentMap(SETTINGS).fit(intents, weights, items, following)
    assert made.facts["loss"] < 0.5 * made.facts["loss_identity"] and not made.is_identity
    moved = made.apply(intents[:, 0])
    cosines = (moved * items[[place for (place,) in following]]).sum(axis=1)
    before = (intents[:, 0] * items[[place for (place,) in following]]).sum(axis=1)
    assert cosines.mean() > 0.8 > before.mean() + 0.3


def test_where_nothing_is_to_be_learnt_it_is_the_identity():
    intents, weights, items, following = rows_of(False)
    made = IntentMap(IntentMapSettings(learning_rate=0.05)).fit(intents, weights, items, following)
    assert made.is_identity and made.facts["loss"] == made.facts["loss_identity"]
    np.testing.assert_allclose(made.apply(intents[:, 0]), intents[:, 0], atol=1e-5)


def test_rows_are_the_same_bytes_alone_and_zero_stays_zero():
    made = IntentMap(SETTINGS).fit(*rows_of(True))
    vectors = np.concatenate([rows_of(True)[0][:, 0], np.zeros((1, 6), np.float32)])
    whole = made.apply(vectors)
    assert all(made.apply(vectors[place : place + 1]).tobytes() == whole[place].tobytes() for place in (0, 7, 80))
    assert not whole[-1].any()


def test_saved_and_versioned(tmp_path):
    made = IntentMap(SETTINGS).fit(*rows_of(True))
    made.save(tmp_path / "map")
    read = IntentMap.load(tmp_path / "map")
    assert read.version == made.version and np.array_equal(read.matrix, made.matrix)
    assert made.named("minilm@1") == f"minilm@1+{made.version}"
    assert IntentMap(SETTINGS).fit(*rows_of(True, seed=1)).version != made.version


def test_too_few_rows_are_an_error():
    intents, weights, items, following = rows_of(True, 20)
    with pytest.raises(InputError, match="too few rows"):
        IntentMap(SETTINGS).fit(intents, weights, items, [*following[:10], *[[]] * 10])
