"""Some users of a dataset: their tables, and the codes that are copied from the dataset's."""

from dataclasses import replace

import numpy as np
import polars as pl

from taiji.data.dataset import Dataset
from taiji.data.event_columns import EventColumns
from taiji.data.field_set import FieldSet
from taiji.data.fields import CategoryField, IdField
from taiji.data.history import History
from taiji.data.user_subset import NEW, UserSubset


def subset(shop, numbers=(7, 3, 7), names=("u7", "u3", "u7")):
    items, times = np.array([4, 2, 9, 1]), np.array([10, 30, 20, 20])
    return UserSubset(shop, np.array(numbers), names, History(np.array([0, 2, 3, 4]), items, times))


def test_it_is_a_dataset_of_these_users(shop):
    made = subset(shop, (7, NEW, 3), ("u7", "stranger", "u3"))
    assert made.n_users == 3 and made.n_items == shop.n_items and "users" not in vars(made)
    assert made.users["user_id"].to_list() == ["u7", "stranger", "u3"]
    assert made.users["age"].to_list() == [shop.users["age"][7], None, shop.users["age"][3]]
    assert made.users.schema == shop.users.schema and made.prices is shop.prices and made.levels == shop.levels
    again = History.from_events(made.events, 3)
    for name in ("offsets", "items", "times"):
        np.testing.assert_array_equal(getattr(again, name), getattr(made.history, name))
    assert made.events["time"].to_list() == [10, 20, 20, 30] and made.last_time == 30
    copied = replace(made, name="other")
    assert type(copied) is Dataset and copied.name == "other" and copied.events.equals(made.events)


def test_further_columns_of_events_are_those_of_the_log_and_unknown_for_newer_ones(shop):
    screens = pl.Series([f"screen {n}" for n in range(len(shop.events))])
    wider = replace(
        shop, events=shop.events.with_columns(screen=screens), event_columns=EventColumns(context=("screen",))
    )
    made = subset(wider)
    assert made.event_schema == wider.event_schema and made.events["screen"].null_count() == 4
    items, times = wider.history.before(7, wider.last_time + 1)
    items, times = np.append(items[::-1], 4), np.append(times[::-1], wider.last_time + 9)
    live = UserSubset(wider, np.array([NEW, 7]), ("new", "u7"), History(np.array([0, 0, len(items)]), items, times))
    logged = wider.events.filter((pl.col("user") == 7) & (pl.col("click") == 1)).unique(["item", "time"], keep="first")
    known = {(row["item"], row["time"]): row["screen"] for row in logged.iter_rows(named=True)}
    found = [known.get((row["item"], row["time"])) for row in live.events.iter_rows(named=True)]
    assert live.events["screen"].to_list() == found and found[-1] is None and None not in found[:-1]
    assert live.events.schema == wider.events.schema


class Loyal(CategoryField):
    """A category of users that depends on more than their row."""

    def values(self, dataset, source):
        number = np.diff(dataset.history.offsets)
        return source.select(loyal=pl.Series(number > 1))


def test_codes_are_copied_only_where_they_depend_on_the_own_row_of_a_known_user(shop, monkeypatch):
    rows = shop.events.filter("exposed").head(40).select("user", "item", "time")
    plain = [IdField("user"), IdField("item"), CategoryField(("age", "spend"), "user", name="profile")]
    for extra, numbers, copied in (
        ([], (7, 3, 7), True),
        ([], (7, NEW, 7), False),
        ([Loyal("age", "user", "loyal")], (7, 3, 7), False),
    ):
        fields = FieldSet([*plain, *extra]).fit(shop, rows, 2**62)
        users = subset(shop, numbers, [f"u{number}" for number in numbers])
        base, expected = fields.user_codes(shop), fields.user_codes(users)
        users = subset(shop, numbers, [f"u{number}" for number in numbers])
        np.testing.assert_array_equal(fields.subset_codes(users, base), expected)
        assert ("users" in vars(users)) != copied, "no table of users is made where rows are copied"
