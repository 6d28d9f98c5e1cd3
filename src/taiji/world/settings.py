"""Settings of the synthetic shop."""

from __future__ import annotations

from pydantic import Field

from taiji.core.settings import Settings


class ShopSettings(Settings):
    """The synthetic shop."""

    users: int = Field(default=1600, ge=20)
    """Number of users over the whole time; they come and go, so most users of the last period are new."""
    promoted: int = Field(default=30, ge=8)
    """Number of items that are shown, a few at a time."""
    tail: int = Field(default=6000, ge=50)
    """Number of items that users find without an exposure. Each is found so rarely that only its text is
    informative."""
    days: int = Field(default=120, ge=8)
    """Length of the log in days."""
    finds: float = Field(default=12.0, gt=0)
    """Mean number of tail items that a user finds beyond the first two. A user finds items from the day of arrival on,
    and is shown items from three days later on."""
    visits: float = Field(default=4.0, gt=0)
    """Mean number of requests per user beyond the first."""
    shown: int = Field(default=10, ge=2)
    """Items shown per request, drawn at random."""
    telling_text: bool = True
    """Titles reveal an item's hidden theme. ``false`` gives the negative control: the same events, with the theme words
    of the titles permuted among items."""
