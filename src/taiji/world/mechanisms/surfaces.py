"""Surfaces of a mall: product cards, short videos and live rooms, which share the users' tastes but have separate pools
and noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.settings import Settings as Base
from taiji.world.draws import Draws
from taiji.world.exposure import Exposure
from taiji.world.laws import blend, unit
from taiji.world.mechanism import Ground, Mechanism
from taiji.world.mechanisms.taste import Taste

Array = NDArray[Any]
NAMES = ("card", "video", "live")


class SurfacesSettings(Base):
    """Settings of ``surfaces``."""

    shares: tuple[float, float, float] = (0.5, 0.3, 0.2)
    """Shares of requests and of items on each surface: cards, videos, live rooms."""
    own: float = Field(default=0.35, ge=0, le=1)
    """Share of the taste on a surface that is specific to the surface."""
    bias: float = Field(default=0.4, ge=0)
    """Standard deviation of the click level between surfaces, on the logit scale."""
    noise: float = Field(default=0.3, ge=0)
    """Standard deviation of the noise per user and item, on the interest scale; doubled in live rooms."""


class Surfaces(Mechanism[SurfacesSettings]):
    """Surface of each item and each request, and each user's taste offsets per surface, which do not change over
    time."""

    Settings = SurfacesSettings
    after = ("content", "taste", "live")
    twins: ClassVar = {"": {"own": 0.0, "bias": 0.0, "noise": 0.0}, "taste": {"own": 0.0}}
    context = ("scenario",)
    choices: ClassVar = {"scenario": NAMES}

    def __init__(self, settings: SurfacesSettings, ground: Ground, draws: Draws) -> None:
        super().__init__(settings, ground, draws)
        topics = ground.need(Taste, "surfaces").long.shape[1]
        item, user = np.arange(ground.items), np.arange(ground.users)
        weights = np.asarray(settings.shares)
        self._item_pool = draws.choice("item", np.broadcast_to(weights, (ground.items, 3)), item)
        self.offsets = unit(
            draws.normal("taste", user[:, None, None], np.arange(3)[None, :, None], np.arange(topics)[None, None, :])
        )
        self.biases = settings.bias * draws.normal("bias", np.arange(3))
        self.noise = settings.noise * np.array([1.0, 1.0, 2.0])

    @property
    def item_pool(self) -> Array:
        """Surface of each item."""
        return self._item_pool

    def pool(self, exposure: Exposure) -> Array:
        """Return the surface of each request."""
        return self.surface(exposure)

    def surface(self, exposure: Exposure) -> Array:
        """Return the indices (B,) of the surfaces in the context."""
        return (exposure.context["scenario"][:, None] == np.array(NAMES)).argmax(axis=1)

    def observe(self, exposure: Exposure) -> None:
        """Draw the surface of each request."""
        weights = np.broadcast_to(np.asarray(self.settings.shares), (len(exposure.user), 3))
        drawn = self.draws.choice("request", weights, *exposure.row_keys)
        exposure.context["scenario"] = np.array(NAMES)[drawn]

    def assume(self, exposure: Exposure) -> None:
        """Use the surface of a list's first item if no surface is given."""
        if "scenario" not in exposure.context:
            exposure.context["scenario"] = np.array(NAMES)[self._item_pool[exposure.safe_items[:, 0]]]

    def place(self, exposure: Exposure) -> None:
        """Replace each user's taste by the taste on the surface of the request."""
        if exposure.user_vector is not None:
            offset = self.offsets[exposure.user, self.surface(exposure)]
            exposure.user_vector = blend(exposure.user_vector, offset, self.settings.own)

    def shape(self, exposure: Exposure) -> None:
        """Add the surface's click level and its noise."""
        surface = self.surface(exposure)
        exposure.add("click", self.biases[surface][:, None])
        if self.settings.noise:
            noise = self.draws.normal("noise", exposure.user[:, None], exposure.safe_items)
            exposure.add("interest", self.noise[surface][:, None] * noise)

    def item_columns(self) -> Mapping[str, Any]:
        """Return the surface of each item."""
        return {"surface": np.array(NAMES)[self._item_pool]}
