"""The decoder with codes that change over time: labels, histories and requests use the code of their own time."""

import numpy as np
import pytest

from taiji.core.component import Requests
from taiji.core.errors import ConfigError, InputError
from taiji.models.codes.dynamic import DynamicCodes
from taiji.models.codes.item_codes import ItemCodes
from taiji.models.codes.residual_kmeans import ResidualKMeans
from taiji.models.retrieval.code_decoder import CodeDecoder, CodeDecoderSettings
from taiji.testing import check_component, check_retriever
from taiji.testing.datasets import checkerboard

QUICK = CodeDecoderSettings(
    width=16, layers=1, epochs=2, batch=8, history=8, seen="keep", beam=30, valid_users=20, collisions="list"
)
CODER = ResidualKMeans.Settings(levels=2, size=4, iterations=3)


@pytest.fixture(scope="module")
def log():
    return checkerboard()


@pytest.fixture(scope="module")
def vectors(log):
    return np.random.default_rng(0).standard_normal((log.n_items, 3))


@pytest.fixture(scope="module")
def coder(vectors):
    return ResidualKMeans(CODER).fit(vectors)


def requests_during(log, count=80):
    """Requests at the times of random events."""
    rows = log.events.sample(count, seed=0)
    return Requests(rows["user"].to_numpy().astype(np.int64), rows["time"].to_numpy())


def from_the_start(coder, log, vectors):
    codes = DynamicCodes()
    codes.use(coder)
    codes.assign(int(log.events["time"].min()), np.arange(log.n_items), vectors)
    return codes


@pytest.fixture(scope="module")
def constant(log, vectors, coder):
    return CodeDecoder(QUICK, codes=ItemCodes.of(coder, vectors)).fit(log)


def test_one_tick_before_everything_is_the_decoder_of_constant_codes(log, vectors, coder, constant):
    changing = CodeDecoder(QUICK, codes=from_the_start(coder, log, vectors)).fit(log)
    requests = requests_during(log)
    np.testing.assert_array_equal(changing.retrieve(requests, 10).items, constant.retrieve(requests, 10).items)
    np.testing.assert_array_equal(changing.scores(requests), constant.scores(requests))
    assert changing.facts["checks"] == constant.facts["checks"]


def test_two_items_that_exchange_their_codes_exchange_their_scores_from_then_on(log, vectors, coder, constant):
    first, second = 0, int(np.flatnonzero((constant.item_codes != constant.item_codes[0]).any(axis=1))[0])
    when = int(np.median(log.events["time"].to_numpy()))
    codes = from_the_start(coder, log, vectors)
    codes.assign(when, np.array([first, second]), vectors[[second, first]])
    moved = constant.recoded(log, codes)
    requests = requests_during(log)
    past, times = log.history.before_batch(requests.user, requests.time, QUICK.history)
    untouched = ~(np.isin(past, [first, second]) & (times >= when)).any(axis=1)
    before = requests.time < when
    assert before.any() and (untouched & ~before).any()
    for part, swapped in ((before, False), (untouched & ~before, True)):
        asked = requests.take(np.flatnonzero(part))
        old, new = constant.scores(asked), moved.scores(asked)
        # Less the share among the items with the same codes, an item's score is that of its codes.
        old -= constant.trie.log_shares
        new -= moved._trie_at(int(moved.code_log.tick(asked.time)[0]))[0].log_shares
        order = [second, first] if swapped else [first, second]
        np.testing.assert_allclose(new[:, [first, second]], old[:, order], atol=1e-5)


def test_an_interaction_has_the_code_of_its_time(log, vectors, coder):
    codes = from_the_start(coder, log, vectors)
    ticks = np.quantile(log.events["time"].to_numpy(), [0.3, 0.6]).astype(np.int64)
    random = np.random.default_rng(1)
    for tick in ticks:
        codes.assign(int(tick), np.arange(log.n_items), vectors[random.permutation(log.n_items)])
    model = CodeDecoder(QUICK, codes=codes).fit(log)
    items, times = (log.events[name].to_numpy() for name in ("item", "time"))
    found = model.item_codes[model.assignments(items, times)]
    np.testing.assert_array_equal(found, codes.at(items, times)[0])
    requests = requests_during(log)
    past, seen, _ = model.past(requests)
    user, time = requests.user, requests.time
    read, when = log.history.before_batch(user, time, QUICK.history)
    for row in range(len(requests)):
        expected = codes.at(read[row], when[row])[0][: int(seen[row])][::-1]
        np.testing.assert_array_equal(past.codes[row, : int(seen[row])].numpy(), expected)


def test_an_item_without_a_code_is_unknown_until_it_has_one(log, vectors, coder):
    times = log.events["time"].to_numpy()
    codes, late = DynamicCodes(), int(np.quantile(times, 0.9))
    codes.use(coder)
    codes.assign(int(times.min()), np.arange(1, log.n_items), vectors[1:])
    codes.assign(late, np.array([0]), vectors[:1])
    model = CodeDecoder(QUICK, codes=codes).fit(log)
    requests = requests_during(log)
    shown = (model.retrieve(requests, log.n_items).items == 0).any(axis=1)
    np.testing.assert_array_equal(shown, requests.time >= late)
    np.testing.assert_array_equal(np.isfinite(model.scores(requests)[:, 0]), requests.time >= late)


def test_the_contract_holds_and_it_comes_back_from_disk(log, vectors, coder):
    codes = from_the_start(coder, log, vectors)
    codes.assign(int(np.median(log.events["time"].to_numpy())), np.array([0, 1]), vectors[[1, 0]])
    model, requests = CodeDecoder(QUICK, codes=codes).fit(log), requests_during(log)
    check_retriever(model, log)
    check_retriever(model, log, requests)
    check_component(model, log, lambda model: model.retrieve(requests, 5).items)


def test_what_does_not_fit_is_an_error(log, vectors, coder, constant):
    codes = from_the_start(coder, log, vectors)
    with pytest.raises(ConfigError) as level:
        CodeDecoder(QUICK.model_copy(update={"collisions": "level"}), codes=codes).fit(log)
    assert level.value.where == "collisions"
    codes.assign(int(log.events["time"].max()) + 1, np.array([log.n_items]), vectors[:1])
    with pytest.raises(InputError, match="catalogue"):
        constant.recoded(log, codes)
    codes.use(ResidualKMeans(CODER).fit(vectors, seed=5))
    with pytest.raises(InputError):  # of another coder
        constant.recoded(log, codes)
    with pytest.raises(InputError, match="catalogue"):  # which has assigned none
        CodeDecoder(QUICK, codes=codes).fit(log)
