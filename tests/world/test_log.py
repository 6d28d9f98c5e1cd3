"""The log is one like any other, and nothing is lost on the way into it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from tests.world.small import small

from taiji.data.dataset import Dataset
from taiji.data.schema import validate
from taiji.world.log import run
from taiji.world.policies import make_policy
from taiji.world.scenario import scenarios


@pytest.mark.parametrize("name", scenarios())
def test_the_log_passes_the_schema_with_its_tasks_declared(name):
    world = small(name, users=40)
    tables = world.log("random", days=2)
    checked = validate(tables)
    declared = {task.name for part in world.mechanisms.values() for task in part.labels}
    assert {task.name for task in tables.event_columns.labels} == declared
    shown = checked.events.filter("exposed")
    filled = shown.select(pl.col(tables.event_columns.names).is_not_null().any()).row(0, named=True)
    assert {column for column, there in filled.items() if not there} <= {"satisfied"}, "few users are surveyed"
    assert checked.events["timestamp"].is_sorted()
    assert not set(shown["item_id"]) - set(checked.items["item_id"])
    known = Dataset.from_tables(tables)
    assert known.tasks[0].name == "click" and known.n_items == len(tables.items)


def test_every_place_that_was_shown_is_a_row():
    world = small("everything", users=60)
    lists = places = clicks = 0
    for exposure in run(world, make_policy("random", world), 1):
        inside = exposure.time < 1
        lists += int(inside.sum())
        places += int(exposure.shown[inside].sum())
        clicks += int(exposure.outcome["click"][inside].sum())
    events = world.log("random", days=1).events
    assert len(events) == places == events["list_id"].len() and events["list_id"].n_unique() == lists
    assert events["click"].sum() == clicks
    by_list = events.group_by("list_id").agg(pl.col("position").sort(), pl.col("timestamp").n_unique())
    assert (by_list["timestamp"] == 1).all()
    assert by_list["position"].list.eval(pl.element() == pl.int_range(pl.len())).list.all().all()


def test_the_funnel_only_narrows_and_the_deepest_step_is_told():
    events = small("short-video", users=300).log(days=2).events
    assert (events["conversion"] <= events["cart"]).all() and (events["cart"] <= events["click"]).all()
    assert (events["watch"] > 0).equals(events["behaviour"].cast(pl.String) != "exposure")
    for name, column in (("buy", "conversion"), ("cart", "cart"), ("click", "click")):
        assert (events["behaviour"].cast(pl.String) == name).sum() <= events[column].sum()
    late = events.filter(pl.col("click") == 1)
    assert ((late["matured_at"] - late["timestamp"]).dt.total_hours() == 24).all()


def test_ids_in_the_log_are_those_of_the_truth():
    world = small("mall", users=400)
    log = Dataset.from_tables(world.log("random", days=4))
    shown = log.events.filter("exposed")
    user = log.users["user_id"].to_numpy()[shown["user"].to_numpy()]
    item = log.items["item_id"].to_numpy()[shown["item"].to_numpy()]
    click = shown["click"].to_numpy()
    expected = world.truth.expect(user, item, shown["time"].to_numpy())["click"][:, 0]
    assert np.corrcoef(expected, click)[0, 1] > 0.2
    views = (1 + shown["position"].to_numpy()) ** -0.5
    assert abs((expected * views).mean() / click.mean() - 1) < 0.5
