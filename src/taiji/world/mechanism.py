"""The contract of a mechanism: one part of a world's behaviour, in a module of its own.

A step calls the mechanisms phase by phase, in each phase in an order in which everyone comes behind those it names in ``after``:

| phase | does |
|---|---|
| ``advance`` | moves the mechanism's state to a slot of the clock |
| ``available`` | says which items can be shown |
| ``observe`` | adds circumstances of the request, and moves states of the users who ask |
| ``place`` | adds vectors: tastes, topics |
| ``shape`` | adds to terms: interest, logits, logarithms |
| ``expect`` | turns terms into expectations |
| ``draw`` | draws outcomes with those expectations |
| ``settle`` | learns from the outcomes: states, terms of leaving and returning |

``place``, ``shape`` and ``expect`` change nothing outside the exposure, for the truth is computed with them too.
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
    """Ground that a mechanism stands on.

    Attributes:
        users, items: how many there are, or will be.
        days: horizon of the scenario.
        slot_days: length of a slot.
        slate: places of a list.
        requests: expected of everybody in a day.
        seed: of the world.
        domain: of the scenario; chooses words.
        traits: of users by name: ``keenness`` (logit), ``activity`` (factor of visits), ``joined`` (day), ``segment`` (number), (users,) each.
        segments: number of segments.
        before: mechanisms made before this one, by name.
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
            ConfigError: the scenario does not have it, or it comes later.
        """
        found = self.find(kind)
        if found is None:
            raise ConfigError(
                "A mechanism needs another one.",
                where=f"mechanisms.{by}",
                expected=f"the mechanism {kind.__name__.lower()} beside it",
                found=", ".join(self.before) or "none before it",
                fix=f"add `{kind.__name__.lower()}: {{}}` to the scenario's mechanisms",
            )
        return found

    def find(self, kind: type[M]) -> M | None:
        """Return the mechanism of a class; None where the scenario does not have it."""
        return next((part for part in self.before.values() if isinstance(part, kind)), None)


class Mechanism(Generic[S]):
    """Part of a world's behaviour.

    Args:
        settings: of the class's own ``Settings``.
        ground: sizes, users' traits and the mechanisms before it.
        draws: its random numbers.
    """

    Settings: ClassVar[type[Base]]
    after: ClassVar[tuple[str, ...]] = ()
    """Mechanisms that come first where the scenario has them."""
    twins: ClassVar[Mapping[str, Mapping[str, object]]] = {}
    """Meaning of "makes no difference": part to the settings that switch it off; the part ``""`` is the whole mechanism."""
    truths: ClassVar[tuple[str, ...]] = ()
    """Expectations that it adds to ``exposure.expected``."""
    labels: ClassVar[tuple[Task, ...]] = ()
    """Labels that it adds to the log, each from the outcome of its name."""
    context: ClassVar[tuple[str, ...]] = ()
    """Circumstances of a request that it adds to the log, from the exposure's ``context``."""
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Values of circumstances that are text."""
    decisions: ClassVar[tuple[str, ...]] = ()
    """Decisions of a policy for it, in a choice's ``display`` or ``row``."""
    bias: ClassVar[tuple[str, ...]] = ()
    """Circumstances of the display that it adds to the log, from the exposure's ``display``."""

    def __init__(self, settings: S, ground: Ground, draws: Draws) -> None:
        self.settings, self.ground, self.draws = settings, ground, draws

    def begin(self) -> None:
        """Set the state to that of the world's opening."""

    def advance(self, slot: int) -> None:
        """Move the state to a slot; called for every slot in turn."""

    def available(self, slot: int) -> Array | None:
        """Return (items,) bool, the items that can be shown; None for all."""
        return None

    def pool(self, exposure: Exposure) -> Array | None:
        """Return (B,) the pool that each request takes its candidates from; None where there is one pool for all."""
        return None

    @property
    def item_pool(self) -> Array | None:
        """Pool of each item, (items,); None where there is one."""
        return None

    def observe(self, exposure: Exposure) -> None:
        """Add circumstances of real requests to ``exposure.context``; its ``items`` are empty yet."""

    def assume(self, exposure: Exposure) -> None:
        """Add the circumstances that hold now, for lists that nobody asked for: the truth of a hypothetical request."""

    def serve(self, exposure: Exposure, choice: Choice) -> None:
        """Change what is shown: ``exposure.items`` (B, slate), which are the first of the choice's (B, M) rankings."""

    def place(self, exposure: Exposure) -> None:
        """Add vectors."""

    def shape(self, exposure: Exposure) -> None:
        """Add to terms."""

    def expect(self, exposure: Exposure) -> None:
        """Add expectations to ``exposure.expected``."""

    def draw(self, exposure: Exposure) -> None:
        """Add outcomes to ``exposure.outcome``."""

    def settle(self, exposure: Exposure) -> None:
        """Learn from the outcomes."""

    def item_columns(self) -> Mapping[str, Any]:
        """Return further columns of the items' table."""
        return {}

    def user_columns(self) -> Mapping[str, Any]:
        """Return further columns of the users' table."""
        return {}

    def history(self, days: float) -> pl.DataFrame | None:
        """Return events that no exposure led to, before a day; they join every log."""
        return None

    def own_log(self) -> Tables | None:
        """Return the log that the mechanism makes by itself when no policy is named; None for none."""
        return None
