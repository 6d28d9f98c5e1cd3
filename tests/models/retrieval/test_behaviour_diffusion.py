"""What users buy is not what they view: the encoder tells behaviours apart; the retriever keeps the contract."""

from copy import copy
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from taiji.core.errors import ConfigError, InputError
from taiji.data.dataset import Dataset
from taiji.data.event_columns import EventColumns
from taiji.data.schema import Tables
from taiji.models.retrieval.behaviour_diffusion import BehaviourDiffusion
from taiji.models.retrieval.behaviour_settings import BehaviourDiffusionSettings
from taiji.testing import check_component, check_deterministic, check_retriever
from taiji.testing.datasets import requests_of

ITEMS = 12
QUICK = BehaviourDiffusionSettings(
    width=16,
    layers=1,
    dropout=0.0,
    batch=32,
    epochs=40,
    diffusion_epochs=25,
    head_epochs=6,
    check_every=5,
    learning_rate=5e-3,
    history=6,
    seen="keep",
    steps=40,
    sampler_steps=5,
    negatives=0,
    valid_users=40,
)
ENCODER = QUICK.model_copy(update={"diffusion": False})


def log_of(users=160, behaviours=("view", "buy")) -> Dataset:
    """Return a log of users who view one item again and again and buy another one; which of the two comes next is
    drawn."""
    random, rows = np.random.default_rng(0), []
    for user in range(users):
        own = random.choice(ITEMS, size=2, replace=False)
        for hour, kind in enumerate(random.integers(2, size=random.integers(4, 9))):
            item = f"i{own[kind]:02d}"
            rows.append((f"u{user}", item, datetime(2024, 1, 1) + timedelta(hours=hour), behaviours[kind]))
    columns = list(zip(*rows))
    names = sorted(set(columns[1]))
    frame = dict(zip(("user_id", "item_id", "timestamp", "behaviour"), columns)) | {"click": 1}
    return Dataset.from_tables(
        Tables(
            items=pl.DataFrame({"item_id": names, "title": names}),
            users=pl.DataFrame({"user_id": sorted(set(columns[0]))}),
            events=pl.DataFrame(frame),
            name="two items",
            event_columns=EventColumns(behaviour="behaviour"),
        )
    )


@pytest.fixture(scope="module")
def two_items():
    return log_of()


@pytest.fixture(scope="module")
def encoder(two_items):
    return BehaviourDiffusion(ENCODER).fit(two_items)


def with_encoder(encoder, data, **changed):
    """Return a retriever with a diffusion that begins with a fitted encoder, fitted."""
    model = BehaviourDiffusion(QUICK.model_copy(update=changed))
    model.encoder_of = encoder
    return model.fit(data)


@pytest.fixture(scope="module")
def fitted(encoder, two_items):
    return with_encoder(encoder, two_items)


def right(model, data, depth=1):
    """Return the share of users among whose first answers is the item that they take under the target behaviour, of
    those who did before."""
    requests = requests_of(data, 80)
    own = data.events.filter(pl.col("behaviour") == model.settings.target).group_by("user").agg(pl.col("item").first())
    wanted = np.full(data.n_users, -1)
    wanted[own["user"].to_numpy()] = own["item"].to_numpy()
    wanted = wanted[requests.user]
    return (model.retrieve(requests, depth).items == wanted[:, None]).any(axis=1)[wanted >= 0].mean()


def test_contract(two_items, fitted):
    check_retriever(fitted, two_items)
    check_component(fitted, two_items, lambda model: model.retrieve(requests_of(two_items), 5).items)


def test_the_encoder_tells_behaviours_apart(two_items, encoder):
    check_retriever(encoder, two_items)
    viewed = copy(encoder)
    viewed.settings = encoder.settings.model_copy(update={"target": "view"})
    assert right(encoder, two_items) > 0.9 and right(viewed, two_items) > 0.9
    blind = BehaviourDiffusion(ENCODER.model_copy(update={"behaviours": "none"})).fit(two_items)
    assert right(blind, two_items) < 0.7


def test_the_condition_does_not_say_which_item_belongs_to_the_behaviour(two_items, encoder, fitted):
    """With the behaviour masked, as in training, the user's two items are found and mixed up; shown it, as released,
    the sampler is handed the answer."""
    assert right(fitted, two_items) < 0.85 and right(fitted, two_items, 2) > 0.6
    shown = with_encoder(encoder, two_items, as_released=("masking",))
    assert right(shown, two_items) > right(fitted, two_items) + 0.15


def test_seed(two_items):
    quick = QUICK.model_copy(update={"epochs": 1, "diffusion_epochs": 1, "head_epochs": 1, "dropout": 0.1})
    check_deterministic(lambda seed: BehaviourDiffusion(quick).fit(two_items, seed=seed, device="cpu"))


def test_an_encoder_is_taken_over(two_items, encoder, fitted):
    np.testing.assert_array_equal(fitted.vectors[:, :-1], encoder.vectors[:, :-1])
    assert fitted.facts["encoder"] == encoder.facts["encoder"] and "head" not in encoder.facts
    for name, value in encoder.network.encoder.named_parameters():
        assert (fitted.network.encoder.get_parameter(name) == value).all()
    with pytest.raises(ConfigError, match=r"encoder_of"):
        with_encoder(encoder, two_items, layers=2)


def test_other_noise_is_another_answer(two_items, fitted):
    requests = requests_of(two_items)
    plain, other = fitted.queries(requests), fitted.redrawn(1).queries(requests)
    assert (plain != other).any(axis=1).all()
    np.testing.assert_array_equal(fitted.redrawn(1).queries(requests), other)
    np.testing.assert_array_equal(fitted.queries(requests), plain)


def test_nothing_at_or_after_a_request_is_read(two_items, fitted):
    """A user's queries do not change with what happens at the request's time and later, in items or behaviours."""
    requests = requests_of(two_items)
    requests = type(requests)(requests.user, np.full(len(requests), int(two_items.events["time"].unique().sort()[3])))
    later = pl.col("time") >= int(requests.time[0])
    events = two_items.events.with_columns(
        pl.when(later).then((pl.col("item") + 3) % ITEMS).otherwise("item").cast(pl.UInt32).alias("item"),
        pl.when(later).then(pl.lit("buy")).otherwise("behaviour").alias("behaviour"),
    )
    changed = fitted.bound_to(two_items.with_users(two_items.users, events))
    np.testing.assert_array_equal(changed.queries(requests), fitted.queries(requests))


def test_who_is_not_known_finds_nothing(two_items, fitted):
    requests = type(requests_of(two_items))([0], [0])
    assert not fitted.queries(requests).any() and (fitted.retrieve(requests, 3).items == -1).all()


def test_interactions_without_a_behaviour_are_learnt_from_and_read(two_items):
    some = pl.when(pl.col("event") % 3 > 0).then("behaviour")
    data = two_items.with_users(two_items.users, two_items.events.with_columns(some.alias("behaviour")))
    quick = QUICK.model_copy(update={"epochs": 1, "diffusion_epochs": 1, "head_epochs": 1})
    check_retriever(BehaviourDiffusion(quick).fit(data), data)


def test_a_log_without_behaviours_or_without_the_target_is_an_error(two_items):
    plain = Dataset(two_items.items, two_items.users, two_items.events.drop("behaviour"), "plain", "shop")
    with pytest.raises(InputError, match="behaviour"):
        BehaviourDiffusion(QUICK).fit(plain)
    with pytest.raises(ConfigError, match="buy, view"):
        BehaviourDiffusion(QUICK.model_copy(update={"target": "cart"})).fit(two_items)


@pytest.mark.parametrize("wrong", [{"sampler_steps": 300}, {"width": 15}], ids=["steps", "width"])
def test_settings_that_do_not_fit(wrong):
    with pytest.raises(ValueError, match=r"sampler_steps|width"):
        BehaviourDiffusionSettings(**wrong)
