"""A policy's observation in a world, and its choice."""

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
    """Public knowledge: data that every policy may use, from the titles and the exposures so far.

    Attributes:
        exposures, clicks: (items,) counts so far.
        profile: (users, topics) decayed sum of the title topics of clicked items.
        text_topics: (items, topics) topics inferred from the titles.
        seen: (users,) number of lists shown to each user so far.
        clicked: (users,) number of clicks of each user so far.
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
        number: (B,) number of the user's earlier requests.
        place: (B,) number of earlier requests in the current session.
        candidates: suggested items; the policy may choose other available items as well.
        available: (items,) bool, items that can be shown.
        pool: (B,) number of items from which the candidates were sampled.
        public: public knowledge at this time.
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
        """Return the requests at ``index``, with the same public knowledge."""
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
    """A policy's decisions for the requests of a step.

    Attributes:
        items: (B, M) rankings, best first, padded with −1. The first items are shown, and further ones may be cached.
        propensity: (B, M) probability of each item at its position; 1 if the policy is deterministic.
        display: additional decisions by name, (B, M) each (``style``, ``prefetched``).
        row: additional decisions by name, (B,) each (``fresh``: compute the list now).
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
    """Policy that chooses lists."""

    def choose(self, observation: Observation, length: int) -> Choice:
        """Return a ranking of at least ``length`` positions per request, or of all candidates if there are fewer."""
