"""The synthetic shop as a mechanism: its items, tastes and responses, and its own log."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from taiji.core.errors import ConfigError
from taiji.core.settings import Settings as Base
from taiji.core.settings import problem_text
from taiji.data.schema import Tables
from taiji.world.draws import Draws
from taiji.world.exposure import Exposure
from taiji.world.laws import logit
from taiji.world.mechanism import Ground, Mechanism
from taiji.world.settings import ShopSettings
from taiji.world.shop import OPENING, Shop

Array = NDArray[Any]


class ShelfSettings(Base):
    """Settings of ``shelf``: those settings of the shop that are not part of the scenario."""

    promoted: int = Field(default=30, ge=8)
    """Number of items that are shown; users find the other items of the scenario on their own."""
    finds: float = Field(default=12.0, gt=0)
    """Mean number of other items that a user finds beyond the first two."""
    visits: float = Field(default=4.0, gt=0)
    """Mean number of requests per user beyond the first, in the shop's own log."""
    shown: int = Field(default=10, ge=2)
    """Items shown per request, in the shop's own log."""
    telling_text: bool = True
    """Titles reveal an item's hidden theme."""


class Shelf(Mechanism[ShelfSettings]):
    """Responses to the items of a :class:`taiji.world.shop.Shop`. Stateless."""

    Settings = ShelfSettings
    twins: ClassVar = {"": {"telling_text": False}, "text": {"telling_text": False}}
    truths = ("buy",)

    def __init__(self, settings: ShelfSettings, ground: Ground, draws: Draws) -> None:
        super().__init__(settings, ground, draws)
        sizes = {"users": ground.users, "tail": ground.items - settings.promoted, "days": int(ground.days)}
        try:
            self.shop = Shop(ShopSettings.model_validate({**settings.model_dump(), **sizes}), ground.seed)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, p['loc']))} {problem_text(p)}" for p in error.errors(include_url=False)]
            raise ConfigError(
                "The scenario's sizes are not valid for a shop.", where="users, items (promoted and tail) and days",
                found="; ".join(problems),
            ) from error  # fmt: skip

    def available(self, slot: int) -> Array:
        """Return the promoted items."""
        return np.arange(self.ground.items) < self.shop.settings.promoted

    def shape(self, exposure: Exposure) -> None:
        """Add the shop's logit of a click."""
        user = np.broadcast_to(exposure.user[:, None], exposure.shape)
        exposure.add("click", logit(self.shop.click_probability(user, exposure.safe_items)))

    def chance(self, exposure: Exposure) -> Array:
        """Return the probability (B, L) of a purchase given a click."""
        user = np.broadcast_to(exposure.user[:, None], exposure.shape)
        return self.shop.conversion_probability(user, exposure.safe_items)

    def expect(self, exposure: Exposure) -> None:
        """Set the expectation of purchases."""
        exposure.expected["buy"] = exposure.expected["click"] * self.chance(exposure)

    def draw(self, exposure: Exposure) -> None:
        """Draw purchases among clicks."""
        bought = self.draws.uniform("buy", *exposure.keys) < self.chance(exposure)
        exposure.outcome["buy"] = ((exposure.outcome["click"] == 1) & bought).astype(np.float64)

    @cached_property
    def _tables(self) -> Tables:
        return self.shop.tables()

    def item_columns(self) -> Mapping[str, Any]:
        """Return the shop's titles, categories and prices."""
        return self._tables.items.drop("item_id").to_dict(as_series=True)

    def history(self, days: float) -> pl.DataFrame:
        """Return the interactions with items that users found on their own (clicks without an exposure)."""
        return self._tables.events.filter(~pl.col("exposed") & (pl.col("timestamp") < OPENING + timedelta(days=days)))

    def own_log(self) -> Tables:
        """Return the shop's own log."""
        return self._tables
