"""The contract of a mechanism: one part of a world's behaviour, in its own module.

A step calls the mechanisms phase by phase. Within a phase, each mechanism comes after those named in its ``after``:

| phase | what a mechanism does in it |
|---|---|
| ``advance`` | moves the mechanism's state to a slot of the clock |
| ``available`` | determines which items can be shown |
| ``observe`` | adds the context of the request, and updates states of the requesting users |
| ``serve`` | may change the policy's lists, and makes decisions that the policy left open |
| ``place`` | sets the vectors of tastes and topics |
| ``shape`` | adds to the terms of the exposure: interest, logits, logarithms |
| ``expect`` | turns terms into expectations |
| ``draw`` | draws outcomes with those expectations |
| ``settle`` | updates states, and the terms of leaving and of the delay until the next request, from the outcomes |

``place``, ``shape`` and ``expect`` change nothing outside the exposure, because they are also used to compute the
truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import polars as pl
from numpy.typing import NDArray

from taiji.core.errors import ConfigError
from taiji.core.settings import Settings as Base
from taiji.data.schema import Tables
from taiji.data.tasks import Task
from taiji.world.draws import Draws
from taiji.world.exposure import Exposure
from taiji.world.observation import Choice

Array = NDArray[Any]
M = TypeVar("M", bound="Mechanism[Any]")
S = TypeVar("S", bound=Base)


@dataclass(frozen=True, eq=False)
class Ground:
    """Inputs of a mechanism's constructor: sizes, user traits and earlier mechanisms.

    Attributes:
        users, items: numbers of users and items over the whole time.
        days: length of the scenario in days.
        slot_days: length of a slot in days.
        slate: positions per list.
        requests: expected requests of all users per day.
        seed: random seed of the world.
        domain: domain of the scenario, which selects the words.
        traits: user traits by name: ``keenness`` (logit), ``activity`` (factor of visits), ``joined`` (day),
            ``segment`` (index), (users,) each.
        segments: number of segments.
        before: mechanisms created before this one, by name.
    """

    users: int
    items: int
    days: float
    slot_days: float
    slate: int
    requests: float
    seed: int
    domain: str
    traits: Mapping[str, Array]
    segments: int
    before: Mapping[str, Mechanism[Any]]

    def need(self, kind: type[M], by: str) -> M:
        """Return the mechanism of a class.

        Raises:
            ConfigError: the scenario does not have the mechanism, or creates it later.
        """
        found = self.find(kind)
        if found is None:
            raise ConfigError(
                "A mechanism requires a mechanism that is missing or comes after it.",
                where=f"mechanisms.{by}",
                expected=f"the mechanism {kind.__name__.lower()} as well",
                found=", ".join(self.before) or "none before it",
                fix=f"add `{kind.__name__.lower()}: {{}}` to the scenario's mechanisms",
            )
        return found

    def find(self, kind: type[M]) -> M | None:
        """Return the mechanism of a class; None if the scenario does not have it."""
        return next((part for part in self.before.values() if isinstance(part, kind)), None)


class Mechanism(Generic[S]):
    """Part of a world's behaviour.

    Args:
        settings: an instance of the class's ``Settings``.
        ground: sizes, users' traits and the mechanisms before it.
        draws: random numbers of this mechanism.
    """

    Settings: ClassVar[type[Base]]
    after: ClassVar[tuple[str, ...]] = ()
    """Mechanisms that come before this one, if the scenario has them."""
    twins: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    """Maps each part of the mechanism that a twin can lack to the settings that switch the part off.

    The part ``""`` is the whole mechanism.
    """
    truths: ClassVar[tuple[str, ...]] = ()
    """Names of the expectations that it adds to ``exposure.expected``."""
    labels: ClassVar[tuple[Task, ...]] = ()
    """Labels that it adds to the log, each from the outcome of the same name."""
    context: ClassVar[tuple[str, ...]] = ()
    """Context columns that it adds to the log, from the exposure's ``context``."""
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Possible values of text columns in ``context``, by column."""
    decisions: ClassVar[tuple[str, ...]] = ()
    """Decisions that it reads from a policy's choice, in ``display`` or ``row``."""
    bias: ClassVar[tuple[str, ...]] = ()
    """Display columns that it adds to the log, from the exposure's ``display``."""

    def __init__(self, settings: S, ground: Ground, draws: Draws) -> None:
        self.settings, self.ground, self.draws = settings, ground, draws

    def begin(self) -> None:
        """Set the initial state."""

    def advance(self, slot: int) -> None:
        """Advance the state to a slot; called for every slot in order."""

    def available(self, slot: int) -> Array | None:
        """Return (items,) bool, items that can be shown; None for all."""
        return None

    def pool(self, exposure: Exposure) -> Array | None:
        """Return the pool (group of items) of each request's candidates as an index, (B,); None for a single pool."""
        return None

    @property
    def item_pool(self) -> Array | None:
        """Pool of each item as an index, (items,); None for a single pool."""
        return None

    def observe(self, exposure: Exposure) -> None:
        """Add the context of real requests to ``exposure.context``; ``exposure.items`` is still empty."""

    def assume(self, exposure: Exposure) -> None:
        """Add the current context to hypothetical lists, in order to compute their truth."""

    def serve(self, exposure: Exposure, choice: Choice) -> None:
        """Change the shown items ``exposure.items`` (B, slate).

        Initially they are the first items of the policy's rankings ``choice.items`` (B, M).
        """

    def place(self, exposure: Exposure) -> None:
        """Set ``exposure.user_vector``, ``exposure.item_vector`` or ``exposure.behaviour_vectors``."""

    def shape(self, exposure: Exposure) -> None:
        """Add to the exposure's terms with :meth:`~taiji.world.exposure.Exposure.add`."""

    def expect(self, exposure: Exposure) -> None:
        """Add expectations to ``exposure.expected``."""

    def draw(self, exposure: Exposure) -> None:
        """Add outcomes to ``exposure.outcome``."""

    def settle(self, exposure: Exposure) -> None:
        """Update the state, and add to ``exposure.row_terms``, from the outcomes."""

    def item_columns(self) -> Mapping[str, Any]:
        """Return additional columns of the item table."""
        return {}

    def user_columns(self) -> Mapping[str, Any]:
        """Return additional columns of the user table."""
        return {}

    def history(self, days: float) -> pl.DataFrame | None:
        """Return events before day ``days`` without an exposure, which are added to every log; None for no events."""
        return None

    def own_log(self) -> Tables | None:
        """Return the mechanism's own log, used if no policy is named; None if it has none."""
        return None
