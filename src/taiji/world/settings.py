"""Settings of the simulated worlds."""

from __future__ import annotations

from pydantic import Field

from taiji.core.settings import Settings


class ShopSettings(Settings):
    """The synthetic shop."""

    users: int = Field(default=1600, ge=20)
    """Users over the whole time; they come and go, so most users of the last period are new."""
    promoted: int = Field(default=30, ge=8)
    """Items that are shown, a few at a time."""
    tail: int = Field(default=6000, ge=50)
    """Items that are found without being shown; each is bought so rarely that only its text says what it is."""
    days: int = Field(default=120, ge=8)
    """Length of the log."""
    finds: float = Field(default=12.0, gt=0)
    """Mean of the tail items a user buys, before and while being shown something."""
    visits: float = Field(default=4.0, gt=0)
    """Mean of the requests a user makes beyond the first."""
    shown: int = Field(default=10, ge=2)
    """Items a request shows, drawn at random."""
    telling_text: bool = True
    """Titles tell an item's hidden theme; ``false`` is the negative twin: the same events, titles shuffled."""
