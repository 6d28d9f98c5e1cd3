"""Each promise of fields and sources, broken once."""

import numpy as np
import polars as pl
import pytest

from taiji.core.errors import ConfigError
from taiji.data.fields import CategoryField, IdField, NumberField, StatisticField
from taiji.data.list_fields import SequenceField
from taiji.data.schema import Tables
from taiji.data.sources import Source
from taiji.testing import check_field, check_source, checkerboard, exposures_of

FIELDS = [
    IdField("item"),
    CategoryField("category_l1", "item"),
    CategoryField("hour"),
    NumberField("load"),
    StatisticField("pair_clicks"),
    SequenceField(4),
]


@pytest.fixture(scope="module")
def board():
    return checkerboard(8, 8, 3)


@pytest.fixture(scope="module")
def rows(board):
    frame = exposures_of(board)
    return frame.with_columns(hour=pl.Series(np.arange(len(frame)) % 24), load=pl.Series(np.arange(len(frame)) / 7))


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_fields_of_ours_pass(field, board, rows):
    check_field(field, board, rows)


class Future(NumberField):
    """Clicks of the whole log."""

    def compute(self, rows):
        counts = np.bincount(rows.dataset.history.items, minlength=rows.dataset.n_items)
        return counts[rows.item]


class OwnLabel(NumberField):
    """Whether the user's next interaction, from the row's own time on, is with the candidate."""

    def compute(self, rows):
        return rows.dataset.history.after_batch(rows.user, rows.time, 1)[0][:, 0] == rows.item


class Together(NumberField):
    """A rank among the rows asked about."""

    def compute(self, rows):
        return rows.item.argsort().argsort()


class Drifting(NumberField):
    """A number that grows with each call."""

    calls = 0

    def compute(self, rows):
        self.calls += 1
        return rows.item + self.calls


class Forgetful(NumberField):
    """A power that is not remembered."""

    def __init__(self, column="load", power=2.0):
        super().__init__(column)
        self.options, self.power = {"column": column, "power": 1.0}, power

    def compute(self, rows):
        return super().compute(rows) ** self.power


class Silent(Forgetful):
    """A power that the options do not even name."""

    def __init__(self, column="load", power=2.0):
        super().__init__(column, power)
        self.options = {"column": column}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Future("load"), "after future events were removed"),
        (OwnLabel("load"), "removed"),
        (Together("load"), "alone"),
        (Drifting("load"), "second call"),
        (Forgetful(), "after saving and loading"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else None,
)
def test_a_broken_promise_is_found(broken, message, board, rows):
    with pytest.raises(AssertionError, match=message):
        check_field(broken, board, rows)


@pytest.mark.parametrize("seed", range(10))
def test_a_label_is_found_whatever_the_log(seed):
    log = checkerboard(8, 8, 3, seed=seed)
    with pytest.raises(AssertionError, match="removed"):
        check_field(OwnLabel("load"), log, exposures_of(log).with_columns(load=pl.lit(0.0)))


def test_a_field_that_does_not_name_its_argument_cannot_be_saved(board, rows):
    with pytest.raises(ConfigError, match="does not store an argument"):
        check_field(Silent(), board, rows)


class Board(Source):
    """The checkerboard as a source."""

    def load(self, settings, seed):
        board = checkerboard(4, 4, 1, seed=self.seed())
        events = board.events.with_columns(pl.from_epoch("time", time_unit="us").alias("timestamp"))
        named = events.join(board.items.select("item", "item_id"), on="item").join(
            board.users.select("user", "user_id"), on="user"
        )
        return Tables(
            board.items.drop("item"), board.users.drop("user"), named.select("user_id", "item_id", "timestamp", "click")
        )

    def seed(self):
        return 0

    def state(self, settings):
        return ["board"]


def test_sources():
    check_source(Board())

    class Other(Board):
        seeds = iter(range(9))

        def seed(self):
            return next(self.seeds)

    with pytest.raises(AssertionError, match="a different table"):
        check_source(Other())

    class Clocked(Board):
        ticks = iter(range(9))

        def state(self, settings):
            return next(self.ticks)

    with pytest.raises(AssertionError, match="without a change of the source"):
        check_source(Clocked())
