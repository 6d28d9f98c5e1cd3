"""The loss against log-probabilities of the codes; exposures between two interactions; nothing of the future."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import torch

from taiji.core.component import Requests
from taiji.data.dataset import Dataset
from taiji.data.schema import Tables
from taiji.models.retrieval.code_decoder import CodeDecoder, CodeDecoderSettings
from taiji.models.retrieval.code_network import BeamScorer, Past
from taiji.models.retrieval.code_training import CodeTraining

CODES = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]])
QUICK = CodeDecoderSettings(width=8, layers=1, dropout=0.0, epochs=1, history=4, seen="keep", beam=6, valid_users=1)


@pytest.fixture(scope="module")
def shop() -> Dataset:
    """Three users; clicks (+) and exposures without a click (−) in their order."""
    return dataset_of({"u0": "+0 -2 -3 +1 -4 +2", "u1": "+5 +4 -0 -1 -2 +3 +0", "u2": "+1"})


def dataset_of(log: dict[str, str]) -> Dataset:
    """Return a dataset of users' clicks and exposures, an hour apart; those of a list, joined without spaces, are at
    the same time."""
    rows = [
        (user, f"i{shown[at + 1]}", datetime(2024, 1, 1) + timedelta(hours=hour), int(shown[at] == "+"))
        for user, entries in log.items()
        for hour, shown in enumerate(entries.split())
        for at in range(0, len(shown), 2)
    ]
    users, items, times, clicks = zip(*rows)
    names = [f"i{n}" for n in range(6)]
    return Dataset.from_tables(
        Tables(
            items=pl.DataFrame({"item_id": names, "title": names}),
            users=pl.DataFrame({"user_id": list(log)}),
            events=pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times, "click": clicks}),
            name="shop",
        )
    )


def training_of(shop: Dataset, **options) -> CodeTraining:
    settings = CodeDecoderSettings.model_validate(QUICK.model_dump() | options)
    model = CodeDecoder(settings, codes=CODES).fit(shop)
    return CodeTraining(model, shop.events, seed=0)


def test_the_loss_is_minus_the_mean_log_probability_of_the_items(shop):
    training = training_of(shop)
    model, network = training.model, training.network.eval()
    batch = training.windows.batch(training.windows.users)
    with torch.no_grad():
        _, loss = training.loss(batch)
        values = []
        for row, group in np.argwhere(batch.items >= 0):
            past = Past(torch.from_numpy(CODES[batch.items[row : row + 1, :group]]))
            scorer = BeamScorer(network, network.read(past), torch.tensor([group]))
            code = torch.from_numpy(CODES[batch.items[row, group]])
            zero = torch.zeros(1, 1, dtype=torch.int64)
            first = scorer(0, zero, zero)[0, 0, code[0]]
            values.append(float(first + scorer(1, zero, code[None, :1])[0, 0, code[1]]))
    np.testing.assert_allclose(float(loss), -np.mean(values), atol=1e-5)
    assert model.facts["checks"][0]["epoch"] == 1


def test_the_held_out_loss_is_that_of_the_last_interactions(shop):
    training = training_of(shop, negatives=2)
    (user,) = training.valid
    end = training.history.offsets[user + 1]
    items = training.history.items[training.history.offsets[user] : end][-training.model.settings.history - 1 :]
    with torch.no_grad():
        network = training.network.eval()
        past = Past(torch.from_numpy(CODES[items[None, :-1]]))
        scorer = BeamScorer(network, network.read(past), torch.tensor([len(items) - 1]))
        code, zero = torch.from_numpy(CODES[items[-1]]), torch.zeros(1, 1, dtype=torch.int64)
        expected = float(scorer(0, zero, zero)[0, 0, code[0]] + scorer(1, zero, code[None, :1])[0, 0, code[1]])
    np.testing.assert_allclose(training.held_out_loss(), -expected, atol=1e-5)


def test_exposures_count_between_an_interaction_and_the_one_before_it(shop):
    training = training_of(shop, skip_weight=1.0, skips=2)
    assert len(training.valid) == 1
    everything = training.windows.__class__(training.history, training.history.offsets[1:], 4)
    batch = everything.batch(np.array([0, 1]))
    first = np.where(batch.items >= 0, CODES[batch.items, 0], -1).tolist()
    assert first == [[0, 0, 1, -1], [2, 2, 1, 0]]
    skipped = training._skipped(batch)
    assert [sorted(group) for group in skipped[0, :3].tolist()] == [[-1, -1], [1, 1], [-1, 2]]
    assert [sorted(group) for group in skipped[1].tolist()] == [[-1, -1], [-1, -1], [0, 1], [-1, -1]]
    total, reported = training.loss(batch)
    assert float(total.detach()) > float(reported.detach())


def test_the_rest_of_a_list_was_skipped_before_the_next_click():
    training = training_of(dataset_of({"u0": "+0-1-2 -3 +3+4-5 -1+5", "u1": "-0+1"}), skip_weight=1.0, skips=4)
    batch = training.windows.__class__(training.history, training.history.offsets[1:], 4).batch(np.array([0, 1]))
    assert batch.items[0].tolist() == [0, 3, 4, 5]
    skipped = training._skipped(batch)
    assert [sorted(group) for group in skipped[0].tolist()] == [
        [-1, -1, -1, -1],  # what is shown with the target itself is not known before it
        [-1, 0, 1, 1],
        [-1, 0, 1, 1],  # a second interaction of the same list
        [-1, -1, -1, 2],
    ]
    assert (skipped[1] == -1).all()


def test_clusters_move_the_thinking_steps(shop):
    training = training_of(shop, thinking="latent", clusters=2)
    assert [sorted(set(cluster.tolist())) for cluster in training.clusters] == [[0, 1], [0, 1]]
    total, reported = training.loss(training.windows.batch(training.windows.users))
    assert float(total.detach()) > float(reported.detach())


def test_no_epoch_reads_the_held_out_interaction(shop):
    training = training_of(shop)
    user = int(training.valid[0])
    last = training.history.offsets[user + 1] - 1
    for batch in training.windows.epoch(2, np.random.default_rng(0)):
        assert last not in batch.places


def test_reads_nothing_at_or_after_the_request(shop):
    model = CodeDecoder(QUICK.model_copy(update={"time": True, "long_history": 2}), codes=CODES).fit(shop)
    now = int(shop.events["time"].min()) + 4 * 3_600_000_000
    requests = Requests(np.arange(3), np.full(3, now))
    other = model.bound_to(shop.with_users(shop.users, shop.events.filter(pl.col("time") < now)))
    np.testing.assert_array_equal(other.retrieve(requests, 6).items, model.retrieve(requests, 6).items)
    np.testing.assert_array_equal(other.scores(requests), model.scores(requests))


@pytest.mark.parametrize("epochs", [6])
def test_training_goes_on_where_nothing_is_held_out(epochs):
    """Otherwise, the first check of nothing would be the best one, and its weights the result."""
    log = dataset_of({f"u{n}": f"+{n % 6}" for n in range(12)})
    made = [
        CodeDecoder(QUICK.model_copy(update={"epochs": count, "check_every": 1, "patience": 2}), codes=CODES).fit(log)
        for count in (2, epochs)
    ]
    assert len(made[1].facts["checks"]) == epochs
    requests = Requests(np.array([0]), np.array([log.last_time + 1]))
    assert not np.allclose(made[0].scores(requests), made[1].scores(requests))


def test_the_held_out_loss_reads_the_interactions_that_a_request_reads(shop):
    """With a compressed long history, none between it and the recent one is skipped."""
    training = training_of(shop, history=2, long_history=2)
    read = []
    training.model.past_of = lambda items, times, long: read.append((items, long)) or Past(None, None)
    training._past(training.whole.batch(np.array([1])))
    items, long = read[0]
    assert (items.tolist(), long.tolist()) == ([[4, 3]], [[5, -1]]), "of 5, 4, 3 and the target"
