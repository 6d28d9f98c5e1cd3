"""From exposure to purchase: view → click → cart → buy, with position bias and competition between the items of a
list."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from taiji.core.settings import Settings as Base
from taiji.data.tasks import Task
from taiji.world.draws import Draws
from taiji.world.exposure import Exposure
from taiji.world.laws import dot, sigmoid, view_chance
from taiji.world.mechanism import Ground, Mechanism
from taiji.world.mechanisms.content import Content

Array = NDArray[Any]


class FunnelSettings(Base):
    """Settings of ``funnel``."""

    position: float = Field(default=0.5, ge=0)
    """Position bias: the position p (from 0) is viewed with probability (1 + p)^−position."""
    substitutes: float = Field(default=0.8, ge=0)
    """Decrease of an item's click logit if all other items in the list have the same topics."""
    diversity: float = Field(default=0.0, ge=0)
    """Increase of every item's click logit in a list whose items have nothing in common."""
    cart_bias: float = -1.0
    """Logit of the probability that a clicked item is added to the cart if the user has no affinity to it."""
    cart: float = Field(default=2.0, ge=0)
    """Amount that full affinity adds to ``cart_bias``."""
    buy_bias: float = -0.5
    """Logit of the probability that an item in the cart is bought if the user has no affinity to it."""
    buy: float = Field(default=2.0, ge=0)
    """Amount that full affinity adds to ``buy_bias``."""
    price: float = Field(default=0.4, ge=0)
    """Decrease of the purchase logit per unit of log(price / median price)."""


def crowding(vectors: Array, shown: Array) -> Array:
    """Return (B, L) mean cosine of each item with the other items of its list; 0 for a list of one item.

    Args:
        vectors: (B, L, K) of length 1.
        shown: (B, L) positions with an item.
    """
    present = np.where(shown[..., None], vectors, 0.0)
    total = present.sum(axis=1, keepdims=True)
    others = np.maximum(shown.sum(axis=1, keepdims=True) - 1, 1)
    return np.where(shown, dot(present, total - present) / others, 0.0)


class Funnel(Mechanism[FunnelSettings]):
    """Views depend on the position, clicks on interest and list, carts and purchases on separate tastes. Stateless."""

    Settings = FunnelSettings
    after = ("content", "taste", "live", "surfaces")
    twins: ClassVar = {
        "": {"position": 0.0, "substitutes": 0.0, "diversity": 0.0},
        "position": {"position": 0.0},
        "competition": {"substitutes": 0.0, "diversity": 0.0},
        "price": {"price": 0.0},
    }
    truths = ("cart", "buy")
    labels = (Task(name="cart", given="click"),)

    def __init__(self, settings: FunnelSettings, ground: Ground, draws: Draws) -> None:
        super().__init__(settings, ground, draws)
        content = ground.find(Content)
        price = np.ones(ground.items) if content is None else content.price / content.settings.price
        self.dearness = np.log(np.maximum(price, 0.01))

    def shape(self, exposure: Exposure) -> None:
        """Add position bias and competition."""
        s = self.settings
        exposure.add("view", np.log(view_chance(np.arange(exposure.shape[1]), s.position))[None, :])
        if exposure.item_vector is not None and (s.substitutes or s.diversity):
            crowd = crowding(exposure.item_vector, exposure.shown)
            exposure.add("click", -s.substitutes * crowd)
            count = np.maximum(exposure.shown.sum(axis=1, keepdims=True), 1)
            exposure.add("click", s.diversity * (1 - crowd.sum(axis=1, keepdims=True) / count))

    def chances(self, exposure: Exposure) -> tuple[Array, Array]:
        """Return the probabilities of cart given click and of purchase given cart, (B, L) each."""
        s = self.settings
        cart = sigmoid(s.cart_bias + s.cart * exposure.affinity("cart"))
        dear = s.price * self.dearness[exposure.safe_items]
        return cart, sigmoid(s.buy_bias + s.buy * exposure.affinity("buy") - dear)

    def expect(self, exposure: Exposure) -> None:
        """Set the expectations of carts and purchases."""
        cart, buy = self.chances(exposure)
        exposure.expected["cart"] = exposure.expected["click"] * cart
        exposure.expected["buy"] = exposure.expected["cart"] * buy

    def draw(self, exposure: Exposure) -> None:
        """Draw carts among clicks and purchases among carts."""
        cart, buy = self.chances(exposure)
        clicked = exposure.outcome["click"] == 1
        put = clicked & (self.draws.uniform("cart", *exposure.keys) < cart)
        exposure.outcome["cart"] = put.astype(np.float64)
        exposure.outcome["buy"] = (put & (self.draws.uniform("buy", *exposure.keys) < buy)).astype(np.float64)
