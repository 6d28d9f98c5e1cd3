"""Settings common to all retrievers."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from taiji.core.settings import Settings

GROUP = "taiji.retrievers"
"""Entry-point group of retrievers."""


class RetrieverSettings(Settings):
    """Settings common to all retrievers. Each model extends this class with its own settings."""

    history: PositiveInt = 50
    """Number of most recent interactions of the user that the model reads."""
    seen: Literal["auto", "keep", "drop"] = "auto"
    """Treatment of candidates with which the user has already interacted: `keep` them, `drop` them, or decide from the
    training log (`auto`). `auto` keeps them if at least one interaction in twenty is a repeat, as in grocery
    shopping."""
