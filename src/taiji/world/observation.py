"""Observation of a policy in a world, and its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM, Requests, Slate

Array = NDArray[Any]


@dataclass(eq=False)
class Public:
    """Public knowledge: what everybody could know by now from what was shown.

    Attributes:
        exposures, clicks: (items,) so far.
        profile: (users, topics) sum of what the titles of clicked items tell, old clicks counting less.
        text_topics: (items, topics) what the titles tell.
        seen: (users,) lists shown to each user so far; clicked: (users,) clicks.
    """

    exposures: Array
    clicks: Array
    profile: Array
    text_topics: Array
    seen: Array
    clicked: Array


@dataclass(frozen=True, eq=False)
class Observation:
    """Requests of one step.

    Attributes:
        requests: user, time and the context of each request.
        number: (B,) requests that the user made before.
        place: (B,) requests of the running session before this one.
        candidates: what may be shown; the policy may choose other available items too.
        available: (items,) bool.
        pool: (B,) number of items that could have been among the candidates.
        public: what is known by now.
    """

    requests: Requests
    number: Array
    place: Array
    candidates: Slate
    available: Array
    pool: Array
    public: Public

    def __len__(self) -> int:
        return len(self.requests)

    def take(self, index: Array) -> Observation:
        """Return the requests at ``index``; what is public stays."""
        slate = Slate(self.candidates.items[index])
        return Observation(
            self.requests.take(index),
            self.number[index],
            self.place[index],
            slate,
            self.available,
            self.pool[index],
            self.public,
        )


@dataclass(frozen=True, eq=False)
class Choice:
    """Answer of a policy.

    Attributes:
        items: (B, M) rankings, best first, padded with −1; the first are shown, and more may be kept for the cache.
        propensity: (B, M) probability with which each item got its place; 1 where the policy has no choice left.
        display: further decisions by name, (B, M) each (``style``, ``prefetched``).
        row: further decisions by name, (B,) each (``fresh``: compute the list now).
    """

    items: Array
    propensity: Array | None = None
    display: Mapping[str, Array] = field(default_factory=dict)
    row: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", np.asarray(self.items, dtype=np.int64))
        if self.propensity is None:
            object.__setattr__(self, "propensity", np.where(self.items == NO_ITEM, np.nan, 1.0))

    @property
    def chances(self) -> Array:
        """(B, M) propensities."""
        assert self.propensity is not None
        return self.propensity


class SlatePolicy(Protocol):
    """Chooser of lists."""

    def choose(self, observation: Observation, length: int) -> Choice:
        """Return a ranking of at least ``length`` places for each request, as far as there are candidates."""
