"""What comes next depends on where somebody is; some items are shown in one place only."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from taiji.core.component import Requests
from taiji.core.errors import InputError
from taiji.data.dataset import Dataset
from taiji.data.event_columns import EventColumns
from taiji.data.schema import Tables
from taiji.models.retrieval.code_decoder import CodeDecoder, CodeDecoderSettings
from taiji.models.retrieval.code_scenarios import column_of, numbers_of, scenario_of_requests, scenarios_of
from taiji.models.retrieval.code_training import CodeTraining
from taiji.testing import check_component

CODES = np.stack([np.arange(8) // 4, np.arange(8) % 4], axis=1)
SETTINGS = CodeDecoderSettings(
    width=16,
    layers=1,
    dropout=0.0,
    epochs=8,
    batch=8,
    learning_rate=1e-2,
    history=4,
    seen="keep",
    beam=8,
    valid_users=1,
    scenario="place",
    pool="home",
)


@pytest.fixture(scope="module")
def mall() -> Dataset:
    """Users who take items 0 to 3 in the shop and 4 to 7 live; item 3 is at home in the shop, item 7 live, the others
    everywhere."""
    random = np.random.default_rng(0)
    rows = [
        (f"u{user:02d}", f"i{4 * live + random.integers(4)}", datetime(2024, 1, 1) + timedelta(hours=hour), place)
        for user in range(30)
        for hour in range(5)
        for live, place in [[(0, "shop"), (1, "live")][random.integers(2)]]
    ]
    users, items, times, places = zip(*rows)
    names = [f"i{n}" for n in range(8)]
    home = [None, None, None, "shop", None, None, None, "live"]
    return Dataset.from_tables(
        Tables(
            items=pl.DataFrame({"item_id": names, "title": names, "home": home}),
            users=pl.DataFrame({"user_id": sorted(set(users))}),
            events=pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times, "click": 1, "place": places}),
            name="mall",
            event_columns=EventColumns(context=("place",)),
        )
    )


def test_a_prompt_and_a_pool_per_scenario(mall):
    model = CodeDecoder(SETTINGS, codes=CODES).fit(mall)
    last = int(mall.events["time"].max()) + 1
    where = np.array(["shop", "live"] * 5)
    requests = Requests(np.repeat(np.arange(5), 2), np.full(10, last), {"place": where})
    found = model.retrieve(requests, 8).items
    first = found[:, :3]
    assert ((first < 4) == (where == "shop")[:, None]).mean() > 0.9  # the same user, asked in two places
    assert not (found[where == "shop"] == 7).any() and (found[where == "shop"] == 3).any()
    assert not (found[where == "live"] == 3).any() and (found[where == "live"] == 7).any()
    check_component(model, mall, lambda decoder: decoder.retrieve(requests, 4).items)
    elsewhere = model.retrieve(
        Requests([0], [last], {"place": ["street"]}), 8
    ).items  # an unknown place has no items of its own
    assert sorted(elsewhere[elsewhere >= 0].tolist()) == [0, 1, 2, 4, 5, 6]
    nowhere = model.retrieve(Requests([0], [last]), 8).items  # nor has a request that does not say its place
    assert sorted(nowhere[nowhere >= 0].tolist()) == sorted(elsewhere[elsewhere >= 0].tolist())


def test_each_target_is_learnt_under_its_own_prompt(mall):
    model = CodeDecoder(SETTINGS.model_copy(update={"epochs": 1}), codes=CODES).fit(mall)
    training = CodeTraining(model, mall.events, seed=0)
    batch = training.windows.batch(np.array([3, 0, 7]))
    _, asked = training._past(batch)
    expected = np.where(batch.items >= 4, 1, 2)  # live comes first, and is where items from 4 on are taken
    np.testing.assert_array_equal(asked.prompt.numpy(), np.where(batch.items >= 0, expected, 0))


def test_numbers_of_scenarios(mall):
    known = scenarios_of(mall.events, "place")
    assert known == ["live", "shop"]
    requests = Requests([0, 1, 2], [0, 0, 0], {"place": ["shop", "street", "live"]})
    assert numbers_of(scenario_of_requests(requests, "place"), known).tolist() == [2, 0, 1]
    with pytest.raises(InputError):
        scenarios_of(mall.events, "weather")


@pytest.mark.parametrize(
    "values",
    [[True, False, None], [1, 2, None], [1.5, 2.0, None], ["live", "shop", None]],
    ids=["booleans", "integers", "numbers", "texts"],
)
def test_a_scenario_is_the_same_text_in_the_log_and_in_a_request(values):
    frame = pl.DataFrame({"place": values, "click": [1] * 3})
    known = scenarios_of(frame, "place")
    texts = column_of(frame, "place", "events").to_list()
    for column in (frame["place"].to_numpy(), np.array(values, dtype=object)):
        asked = scenario_of_requests(Requests([0, 1, 2], [0, 0, 0], {"place": column}), "place")
        assert asked.tolist() == texts and numbers_of(asked, known).min() >= 1
