"""The order of a log is found by sampling; the target is not shown but in the mode that says so; nothing leaks a
gradient."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import torch

from taiji.data.dataset import Dataset
from taiji.data.schema import Tables
from taiji.models.retrieval.intent_diffusion import (
    IntentDiffusion,
    IntentDiffusionSettings,
    IntentNetwork,
    newest,
)
from taiji.testing import check_component, check_deterministic, check_retriever
from taiji.testing.datasets import requests_of

QUICK = IntentDiffusionSettings(
    width=16,
    hidden=32,
    dropout=0.0,
    batch=64,
    epochs=12,
    learning_rate=1e-2,
    history=6,
    session=3,
    seen="keep",
    steps=20,
)
ITEMS = 12


def log_of(step, users=80) -> Dataset:
    """Return a log of users who each begin somewhere and go on by ``step(random, item)``."""
    random, rows = np.random.default_rng(0), []
    for user in range(users):
        item = int(random.integers(ITEMS))
        for hour in range(int(random.integers(3, 9))):
            rows.append((f"u{user}", f"i{item:02d}", datetime(2024, 1, 1) + timedelta(hours=hour)))
            item = step(random, item)
    columns = list(zip(*rows))
    names = sorted(set(columns[1]))
    return Dataset.from_tables(
        Tables(
            items=pl.DataFrame({"item_id": names, "title": names}),
            users=pl.DataFrame({"user_id": sorted(set(columns[0]))}),
            events=pl.DataFrame({"user_id": columns[0], "item_id": columns[1], "timestamp": columns[2], "click": 1}),
            name="steps",
        )
    )


@pytest.fixture(scope="module")
def circle():
    return log_of(lambda random, item: (item + 1) % ITEMS)


@pytest.fixture(scope="module")
def fitted(circle):
    return IntentDiffusion(QUICK).fit(circle)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return IntentNetwork(ITEMS, [3], QUICK).double()


def histories():
    items = torch.tensor([[4, 3, 0, 2, 0, 0], [0, 7, 1, 1, 5, 6], [0, 0, 0, 0, 0, 0]])
    return items, (items > 0).long().unsqueeze(-1)


def test_contract(circle, fitted):
    check_retriever(fitted, circle)
    requests = requests_of(circle)
    check_component(fitted, circle, lambda model: model.retrieve(requests, 5).items)


def test_learns_an_order(circle, fitted):
    requests = requests_of(circle, 40)
    last = circle.history.before_batch(requests.user, requests.time, 1)[0][:, 0]
    assert (fitted.retrieve(requests, 3).items[:, 0] == (last + 1) % ITEMS).mean() > 0.9


def test_seed(circle):
    quick = QUICK.model_copy(update={"epochs": 1, "dropout": 0.1})
    check_deterministic(lambda seed: IntentDiffusion(quick).fit(circle, seed=seed, device="cpu"))


def test_the_sampler_goes_where_the_next_item_is(circle, fitted):
    """In a circle the next item's embedding is nearest to what is sampled, from any noise."""
    network, items = fitted.network, torch.arange(1, ITEMS + 1)
    x = network.sequence(items[:, None], fitted._padded[items[:, None]]).detach()
    condition = network.condition(x, torch.ones(ITEMS, 1, dtype=torch.bool))
    start = torch.randn(ITEMS, QUICK.width, generator=torch.Generator().manual_seed(5))
    nearest = torch.cdist(network.sampled(condition, start), x[:, 0]).argmin(dim=1)
    assert (nearest == items % ITEMS).double().mean() > 0.8


def test_the_released_mode_shows_the_tower_its_target():
    """Where the next item is random nothing can be learnt; the noised target is seen all the same, and is missing when
    it counts."""
    chance = log_of(lambda random, item: int(random.integers(ITEMS)), users=120)
    losses = {}
    for intent in ("sampled", "noised_target"):
        model = IntentDiffusion(QUICK.model_copy(update={"intent": intent, "epochs": 8})).fit(chance)
        losses[intent] = model.facts["losses"][-1]
    assert losses["noised_target"] < losses["sampled"] - 0.3


def test_without_diffusion_the_denoiser_is_not_trained(circle):
    plain = QUICK.model_copy(update={"intent": "none", "epochs": 1})
    model = IntentDiffusion(plain).fit(circle, seed=3, device="cpu")
    torch.manual_seed(3)
    untrained = IntentNetwork(ITEMS, [], plain)
    for name, value in untrained.denoiser.named_parameters():
        torch.testing.assert_close(model.network.denoiser.get_parameter(name), value, rtol=0, atol=0)
    check_retriever(model, circle)


def test_an_oracle_denoiser_reproduces_the_next_item(network, monkeypatch):
    items, categories = histories()
    condition = network.condition(network.sequence(items, categories), items > 0)
    target = network.sequence(torch.tensor([5, 6, 7]), torch.ones(3, 1, dtype=torch.int64)).detach()
    drift = (target - condition[:, : QUICK.width]) / 2**0.5
    monkeypatch.setattr(network.denoiser, "forward", lambda noisy, step, condition: drift)
    torch.testing.assert_close(network.sampled(condition, torch.randn_like(target)), target, rtol=0, atol=1e-12)
    errors, found = network.denoised(condition, target, torch.tensor([1, 9, 20]), torch.randn_like(target))
    torch.testing.assert_close(found, target, rtol=0, atol=1e-12)
    assert not errors.any()


def test_gradients_stop(network):
    """The diffusion's loss trains the denoiser alone; the user's vector does not train the denoiser."""
    items, categories = histories()
    x = network.sequence(items, categories)
    condition = network.condition(x, items > 0)
    target = network.sequence(torch.tensor([5, 6, 7]), torch.ones(3, 1, dtype=torch.int64))
    errors, denoised = network.denoised(condition, target, torch.tensor([1, 9, 20]), torch.randn_like(target))
    errors.sum().backward()
    trained = {name for name, value in network.named_parameters() if value.grad is not None and value.grad.any()}
    assert trained and all(name.startswith("denoiser.") for name in trained)
    network.zero_grad(set_to_none=True)
    for intent in (denoised, network.sampled(condition, torch.randn_like(target))):
        network.user(x, items > 0, intent)[:2].sum().backward(retain_graph=True)
    assert network.items.grad is not None and all(value.grad is None for value in network.denoiser.parameters())


def test_items_know_nothing_of_the_user(network):
    """The item side's vectors use the item tower's parameters only, so that an index of them stays valid."""
    items = torch.arange(1, ITEMS + 1)
    network.item(items, torch.ones(ITEMS, 1, dtype=torch.int64)).sum().backward()
    trained = {name.split(".")[0] for name, value in network.named_parameters() if value.grad is not None}
    assert trained == {"items", "categories", "item_tower"}


def test_padding_changes_nothing(network):
    network.eval()
    items, categories = histories()
    intent = torch.randn(1, QUICK.width, dtype=torch.float64)
    whole = network.user(network.sequence(items[:1], categories[:1]), items[:1] > 0, intent)
    short = network.user(network.sequence(items[:1, :4], categories[:1, :4]), items[:1, :4] > 0, intent)
    torch.testing.assert_close(whole, short, rtol=0, atol=1e-12)


def test_the_newest_known_entry():
    items, _ = histories()
    found = newest(items.double().unsqueeze(-1), items > 0)
    assert found.squeeze(-1).tolist() == [4, 7, 0]


def test_a_request_without_a_history_finds_nothing(fitted):
    with torch.no_grad():
        vectors = fitted._user(np.array([[-1, -1], [-1, 3]]))
    assert not vectors[0].any() and float(vectors[1].norm()) == pytest.approx(1)


@pytest.mark.parametrize("wrong", [{"sampler_steps": 60}, {"width": 15}], ids=["steps", "width"])
def test_settings_that_do_not_fit(wrong):
    with pytest.raises(ValueError, match=r"sampler_steps|width"):
        IntentDiffusionSettings(**wrong)
