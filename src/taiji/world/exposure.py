"""Lists shown to users in one step, with all values computed by the mechanisms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taiji.core.component import NO_ITEM
from taiji.world.draws import folded
from taiji.world.laws import dot, sigmoid

Array = NDArray[Any]


@dataclass(eq=False)
class Exposure:
    """B lists of L positions; the mechanisms fill in terms, then expectations, then outcomes.

    Attributes:
        user: (B,) user of each request.
        number: (B,) number of earlier requests of the user; ``user`` and ``number`` are the key of every draw.
        time: (B,) days since the start of the world.
        slot: slot of the clock, the same for all rows.
        items: (B, L) items shown, padded with −1.
        candidates: (B, C) candidates of the request; None for hypothetical lists.
        available: (items,) bool, items that can be shown; None for hypothetical lists.
        pool: (B,) number of items from which the candidates were sampled; None for hypothetical lists.
        context: context of the request by name, (B,) each.
        display: properties of the display and choices of the policy by name, (B, L) each.
        user_vector: (B, K) tastes; None if no mechanism provides them.
        item_vector: (B, L, K) topics; None if no mechanism provides them.
        behaviour_vectors: tastes that replace ``user_vector`` for a behaviour (``cart``, ``buy``), (B, K) each.
        terms: sums that mechanisms add to, (B, L) each: ``interest``, ``click`` (logit), ``view`` (log), ``watch``
            (log), …
        row_terms: sums per request that mechanisms add to, (B,) each: ``leave`` (logit), ``delay`` (log).
        expected: expectations by name, (B, L) each.
        outcome: outcomes by name, (B, L) each; NaN where unknown.
    """

    user: Array
    number: Array
    time: Array
    slot: int
    items: Array
    candidates: Array | None = None
    available: Array | None = None
    pool: Array | None = None
    context: dict[str, Array] = field(default_factory=dict)
    display: dict[str, Array] = field(default_factory=dict)
    user_vector: Array | None = None
    item_vector: Array | None = None
    behaviour_vectors: dict[str, Array] = field(default_factory=dict)
    terms: dict[str, Array] = field(default_factory=dict)
    row_terms: dict[str, Array] = field(default_factory=dict)
    expected: dict[str, Array] = field(default_factory=dict)
    outcome: dict[str, Array] = field(default_factory=dict)
    _folded: dict[str, Array] = field(default_factory=dict, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """(B, L)."""
        return self.items.shape[0], self.items.shape[1]

    @property
    def shown(self) -> Array:
        """(B, L) bool: positions with an item."""
        return self.items != NO_ITEM

    @property
    def safe_items(self) -> Array:
        """(B, L) items with 0 at the padding, for lookups whose results are masked."""
        return np.maximum(self.items, 0)

    @property
    def keys(self) -> tuple[Array]:
        """Key of a draw for each position: user, number and position, folded."""
        found = self._folded.get("place")
        if found is None or found.shape != self.shape:
            found = folded(self.user[:, None], self.number[:, None], np.arange(self.items.shape[1])[None, :])
            self._folded["place"] = found
        return (found,)

    @property
    def row_keys(self) -> tuple[Array]:
        """Key of a draw for each request: user and number, folded."""
        if "row" not in self._folded:
            self._folded["row"] = folded(self.user, self.number)
        return (self._folded["row"],)

    def renumber(self, number: Array) -> None:
        """Replace ``number``, and thus all later draws."""
        self.number = number
        self._folded.clear()

    def add(self, name: str, values: Array | float) -> None:
        """Add values to the term ``name`` of each position."""
        have = self.terms.get(name)
        new = np.broadcast_to(np.asarray(values, dtype=np.float64), self.shape)
        self.terms[name] = np.array(new) if have is None else have + new

    def add_row(self, name: str, values: Array | float) -> None:
        """Add values to the term ``name`` of each request."""
        have = self.row_terms.get(name)
        new = np.broadcast_to(np.asarray(values, dtype=np.float64), self.user.shape)
        self.row_terms[name] = np.array(new) if have is None else have + new

    def term(self, name: str) -> Array:
        """Return a term; zeros if nothing was added to it."""
        found = self.terms.get(name)
        return np.zeros(self.shape) if found is None else found

    def affinity(self, behaviour: str = "view") -> Array:
        """Return (B, L) cosine of tastes and topics; zeros if the exposure has no tastes or no topics."""
        taste = self.behaviour_vectors.get(behaviour, self.user_vector)
        if taste is None or self.item_vector is None:
            return np.zeros(self.shape)
        return dot(taste[:, None, :], self.item_vector)

    def expect_click(self, bias: float, keenness: Array) -> None:
        """Set the expectations of ``view`` and ``click``.

        ``bias``, ``keenness`` (users,) and the terms ``interest`` and ``click`` add up to the logit of a click given a
        view.
        """
        self.expected["view"] = np.where(self.shown, np.exp(np.minimum(self.term("view"), 0.0)), 0.0)
        chance = sigmoid(bias + keenness[self.user][:, None] + self.term("interest") + self.term("click"))
        self.expected["click"] = self.expected["view"] * chance
