"""Do creators upload more if their new items are matched with users (DualRec)?

In the world ``creators``, creators upload more when their items are shown; in the twin, exposure makes no difference.
Users and items are described by public information: titles, and the titles that a user clicked. Every midnight, items
uploaded in the last two days that were shown fewer than ten times are matched with users who are likely to come. A
match ends when the item is shown to the user or is no longer new. Matches become candidates of the user's lists, and
their value, times the weight λ (``boost``), is added to the score.

Arms, equal in everything else: ``matched``; ``none``, the deciding baseline, without matches; ``random users``, matched
with random users who are likely to come; ``everybody``, no matches, but every new item gets a bonus for all users.
Metric: uploads per creator on the test days, which follow the days on which λ is chosen. Also reported: the share of
new items shown at least ten times, the Gini coefficient of the creators' exposure, and, as the cost, the clicks per
user and the clicks per showing of a new item. :mod:`benchmarks.components.comparison` explains the columns, the checks,
and what is held equal for all arms. Numbers of parameters are not compared.

The exact part compares two ways of matching if there are too few users for all items: the auction, and turns in which
one item after another chooses users, in the order of the items' ids or in random order.

    python -m benchmarks.components --only creator [--quick] [--json benchmarks/results/creator.json]
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.components.comparison import TWIN, Arm, Component, Outcome
from benchmarks.harness import Result
from taiji.core.component import NO_ITEM
from taiji.models.retrieval.auction import auction, in_turn
from taiji.models.retrieval.matches import Matches
from taiji.models.retrieval.user_activity import activity_chances, fit_activity
from taiji.world import World
from taiji.world.laws import unit
from taiji.world.mechanisms.content import Content
from taiji.world.mechanisms.creators import Creators
from taiji.world.observation import Choice, Observation

Array = NDArray[Any]
CAPACITY, PER_ITEM, NEW_DAYS, ACTIVE, ENOUGH = 10, 30, 2.0, 0.2, 10
Kind = Literal["matched", "none", "random users", "everybody"]


class Loop:
    """A world that one policy serves, with its matches and counts.

    Args:
        world: world at its start.
        kind: arm, which decides with whom new items are matched.
        boost: weight λ of a match in the score.
        seed: seed of drawn users.
    """

    def __init__(self, world: World, kind: Kind, boost: float, seed: int) -> None:
        users = world.scenario.users
        self.world, self.kind, self.boost, self.random = world, kind, boost, np.random.default_rng(seed)
        self.matches, self.day = Matches(users, CAPACITY), 0
        self.active = np.zeros((users, world.scenario.days + 2), dtype=bool)
        self.shown, self.clicks = np.zeros(world.scenario.items), 0.0
        self.new, self.new_shown, self.new_clicks = np.zeros(world.scenario.items, dtype=bool), 0, 0

    def serve(self, until: float) -> None:
        """Serve requests until the day ``until``."""
        while (self.world.slot + 1) * self.world.slot_days < until:
            today = int(self.world.slot * self.world.slot_days + 1e-9)
            if today > self.day:
                self.day = today
                self.midnight()
            asked = self.world.observation
            found = self.world.step(Choice(self.lists(asked)))
            self.active[asked.requests.user, today] = True
            there = found.items != NO_ITEM
            user = np.broadcast_to(asked.requests.user[:, None], there.shape)
            self.matches.release(user[there], found.items[there])
            self.shown += np.bincount(found.items[there], minlength=len(self.shown))
            self.clicks += float(found.outcome["click"].sum())
            new = there & self.new[np.maximum(found.items, 0)]
            self.new_shown += int(new.sum())
            self.new_clicks += int(found.outcome["click"][new].sum())

    def new_items(self) -> Array:
        """Return (items,) bool: True for items that are available and were uploaded in the last ``NEW_DAYS`` days."""
        born = self.world.find(Content).born
        return self.world.available(self.world.slot) & (born > max(self.day - NEW_DAYS, 0.0)) & (born <= self.day)

    def midnight(self) -> None:
        """Release items that are no longer new. In arms with matches, match the new items that were seldom shown,
        within the remaining capacity of the users."""
        new = self.new = self.new_items()
        gone = ~new[self.matches.item]
        self.matches.release(self.matches.user[gone], self.matches.item[gone])
        items = np.flatnonzero(new & (self.shown < ENOUGH))
        if self.kind not in ("matched", "random users") or self.day < 2 or not len(items):
            return
        past = self.active[:, : self.day]
        there = activity_chances(past, fit_activity(past)) >= ACTIVE
        public = self.world.public
        near = unit(public.profile) @ unit(public.text_topics).T
        values = (near[:, items] - near.mean(axis=1, keepdims=True)).T
        if self.kind == "random users":
            values = self.random.random(values.shape)
        self.matches.add(items, values, there, per_item=PER_ITEM)

    def lists(self, asked: Observation) -> Array:
        """Return the best items (B, slate) among each request's candidates and its user's matches."""
        public, length = self.world.public, self.world.scenario.slate
        row, item, worth = self.matches.of(asked.requests.user)
        fine = asked.available[item]
        row, item, worth = row[fine], item[fine], worth[fine]
        own = np.full((len(asked), CAPACITY), NO_ITEM)
        gain = np.zeros(own.shape)
        place = np.arange(len(row)) - np.searchsorted(row, row)
        own[row, place], gain[row, place] = item, worth
        candidates = asked.candidates.items
        candidates = np.where((candidates[:, :, None] == own[:, None, :]).any(axis=2), NO_ITEM, candidates)
        items = np.concatenate([own, candidates], axis=1)
        safe = np.maximum(items, 0)
        profile = unit(public.profile[asked.requests.user])
        scores = (profile[:, None] * unit(public.text_topics)[safe]).sum(axis=2)
        scores += ((public.clicks + 1) / (public.exposures + 10))[safe]
        scores += self.boost * np.concatenate([gain, np.zeros(candidates.shape)], axis=1)
        if self.kind == "everybody":
            scores += self.boost * 0.3 * self.new[safe]
        scores = np.where(items == NO_ITEM, -np.inf, scores)
        return np.take_along_axis(items, np.argsort(-scores, axis=1, kind="stable")[:, :length], axis=1)


Data = tuple[World, tuple[float, float, float]]


def data(place: str, seed: int, quick: bool) -> Data:
    """Return a world at its start, and the days on which warm-up, validation and test end."""
    world = World("creators", seed, users=100 if quick else 600, items=3000, days=14)
    if place == TWIN:
        world = world.twin("creators")
    return world, (2.0, 3.0, 6.0) if quick else (4.0, 7.0, 13.0)


def arm(kind: Kind, configurations: tuple[Mapping[str, Any], ...]) -> Arm:
    """Return an arm. During the warm-up, lists are served without matches."""

    def run(given: Data, configuration: Mapping[str, Any], seed: int) -> Outcome:
        world, (warm, validated, end) = given
        loop = Loop(deepcopy(world), "none", 0.0, seed)
        loop.serve(warm)
        loop.kind, loop.boost = kind, configuration["boost"]
        creators, content = loop.world.find(Creators), loop.world.find(Content)
        start = creators.uploads.sum()
        loop.serve(validated)
        middle, clicks, shown = creators.uploads.sum(), loop.clicks, loop.shown.copy()
        new_shown, new_clicks = loop.new_shown, loop.new_clicks
        loop.serve(end)
        fresh = (content.born >= validated) & (content.born < end - 1)
        seen = loop.shown - shown
        share = np.sort(np.bincount(content.creator, seen, minlength=len(creators.count)))
        ranks = np.arange(1, len(share) + 1)
        return Outcome(
            float(middle - start),
            {
                "uploads per creator": float(creators.uploads.sum() - middle) / len(creators.count),
                "share of new items shown often": float((loop.shown[fresh] >= ENOUGH).mean()) if fresh.any() else 0.0,
                "Gini of creators' exposure": float(2 * (ranks * share).sum() / (len(share) * share.sum()) - 1 - 1 / len(share)),
                "clicks per showing of a new item": (loop.new_clicks - new_clicks) / max(loop.new_shown - new_shown, 1),
                "clicks per user": (loop.clicks - clicks) / loop.world.scenario.users,
            },
        )  # fmt: skip

    return Arm(run, configurations)


def scarce(result: Result, quick: bool) -> None:
    """Report the total value of the auction and of turns if items want more users than there is capacity for, and the
    share of this value that the first third of the items gets."""
    random = np.random.default_rng(0)
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(5 if quick else 20):
        values = random.random((60, 40)) * random.random(40)
        users, room = np.tile(np.arange(40), (60, 1)), np.full(40, 5)
        ways = {
            "auction": auction(values, users, room, 10, 0.001),
            "by number": in_turn(values, users, room, 10, np.arange(60)),
            "drawn turns": in_turn(values, users, room, 10, random.permutation(60)),
        }
        for name, held in ways.items():
            own = (values * held).sum(axis=1)
            found.setdefault(name, []).append((float(own.sum()), float(own[:20].sum() / own.sum())))
    for name, pairs in found.items():
        total, first = np.mean(pairs, axis=0)
        result.rows.append(
            {"component": "creator", "matching": name, "worth": total, "share of the first third": first}
        )
    totals = {name: np.mean(pairs, axis=0) for name, pairs in found.items()}
    result.at_least(
        "creator: total value of the auction over that of turns in random order",
        totals["auction"][0] / totals["drawn turns"][0],
        1.0,
    )


STRENGTHS = ({"boost": 0.5}, {"boost": 2.0})
COMPONENT = Component(
    claim="matching new items with users makes creators upload more",
    metric="uploads per creator",
    arms={
        "matched": arm("matched", STRENGTHS),
        "none": arm("none", ({"boost": 0.0}, {"boost": 0.0})),
        "random users": arm("random users", STRENGTHS),
        "everybody": arm("everybody", STRENGTHS),
    },
    data=data,
    same_parameters=False,
    exact=scarce,
)
