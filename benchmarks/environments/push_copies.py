"""Results of sending copy (short texts about items) in the world `push`, and the true value of every text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from taiji.world import World, grammar
from taiji.world.draws import Draws
from taiji.world.mechanisms.content import Content
from taiji.world.mechanisms.copy import STYLES, Copy
from taiji.world.mechanisms.wording import WORDINGS, Wording
from taiji.world.observation import Choice, Observation
from taiji.world.scenario import load_scenario

Array = np.ndarray
COPIES = 8
"""Number of texts sent per item."""
WEEK = 7 * 86_400_000_000


def push_world(seed: int, users: int, items: int, days: int) -> World:
    """Return the world `push` with the mechanism `wording`, for ``days`` days."""
    given = load_scenario("push")
    mechanisms = {**given.mechanisms, "wording": {}}
    return World(load_scenario("push", mechanisms=mechanisms, users=users, items=items, days=days), seed)


class Sender:
    """Policy that sends the first ``items`` items, all equally often, each with :data:`COPIES` texts of its own.

    In odd weeks, the first half of an item's texts is sent in three quarters of the cases, otherwise in half of them.
    This makes the log confounded: click rates differ between weeks, and so does the mix of texts.
    """

    def __init__(self, world: World, items: int) -> None:
        self.draws, self.items = Draws(world.seed, "sender"), items
        item, copy = np.arange(world.scenario.items)[:, None], np.arange(COPIES)[None, :]
        self.styles = self.draws.integers("style", len(STYLES), item, copy)
        self.wordings = self.draws.integers("wording", WORDINGS, item, copy)

    def choose(self, observation: Observation, length: int) -> Choice:
        """Choose an item and a text per request; see :class:`taiji.world.observation.SlatePolicy`."""
        offered = np.where(observation.candidates.items < self.items, observation.candidates.items, -1)
        keys = observation.requests.user, observation.number
        luck = self.draws.uniform("item", keys[0][:, None], keys[1][:, None], np.arange(offered.shape[1])[None, :])
        chosen = np.take_along_axis(offered, np.where(offered < 0, -1.0, luck).argmax(axis=1)[:, None], axis=1)
        share = np.where((observation.requests.time // WEEK) % 2 == 1, 0.75, 0.5)
        first = self.draws.uniform("half", *keys) < share
        copy = self.draws.integers("copy", COPIES // 2, *keys) + np.where(first, 0, COPIES // 2)
        safe = np.maximum(chosen[:, 0], 0)
        display = {"style": self.styles[safe, copy][:, None], "wording": self.wordings[safe, copy][:, None]}
        return Choice(chosen, display=display)


def results_of(world: World, items: int, days: int) -> pl.DataFrame:
    """Send for some days, and return the numbers of sends, clicks and kept promises by item, text and week. A kept
    promise is a click after which the reader found that the item is what the text had promised."""
    events = world.log(Sender(world, items), days).events
    return (
        events.with_columns(
            stratum=(pl.col("timestamp").dt.epoch("d") // 7).cast(pl.String), category=pl.col("style_name")
        )
        .group_by("item_id", "copy", "category", "stratum", maintain_order=True)
        .agg(sends=pl.len(), clicks=pl.col("click").cast(pl.Int64).sum(), satisfied=pl.col("kept").cast(pl.Int64).sum())
        .sort("item_id", "copy", "stratum")
    )


@dataclass(frozen=True, eq=False)
class Copies:
    """Every possible text about some items, as arrays (items, styles, wordings).

    Attributes:
        texts: the texts.
        categories: names of their styles.
        clicks, kept: true expected clicks and kept promises per send to a uniformly drawn reader.
        utility: part of the logit of a click that depends on the text.
    """

    texts: Array
    categories: Array
    clicks: Array
    kept: Array
    utility: Array


def all_copies(world: World, items: Array, readers: int) -> Copies:
    """Return every text about the items, with true values that are means over ``readers`` drawn users per item."""
    shape = (len(items), len(STYLES), WORDINGS)
    styles, wordings = (part.ravel() for part in np.indices(shape[1:]))
    draws, content = Draws(world.seed, "readers"), world.find(Content)
    texts, clicks, kept = [], np.zeros(shape), np.zeros(shape)
    for row, item in enumerate(items.tolist()):
        plain = grammar.copies(styles, [content.titles[item]] * len(styles))
        texts += grammar.worded(plain, wordings)
        users = draws.integers("user", world.scenario.users, item, np.arange(readers))
        asked = np.repeat(users, len(styles))
        display = {"style": np.tile(styles, readers)[:, None], "wording": np.tile(wordings, readers)[:, None]}
        expected = world.truth.expect(asked, np.full((len(asked), 1), item), display=display)
        for found, name in ((clicks, "click"), (kept, "kept")):
            found[row] = expected[name].reshape(readers, *shape[1:]).mean(axis=0)
    style = world.find(Copy).utility.mean(axis=0)
    utility = np.broadcast_to(style[:, None] + world.find(Wording).utility, shape)
    categories = np.broadcast_to(np.array(STYLES, dtype=object)[:, None], shape)
    return Copies(np.array(texts, dtype=object).reshape(shape), categories, clicks, kept, utility)
