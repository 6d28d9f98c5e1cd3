"""Settings common to all retrievers."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from taiji.core.settings import Settings

GROUP = "taiji.retrievers"
"""Entry points of retrievers."""


class RetrieverSettings(Settings):
    """Settings of every retriever; a model's own extend it."""

    history: PositiveInt = 50
    """Most recent interactions of the user that the model reads."""
    seen: Literal["auto", "keep", "drop"] = "auto"
    """Items that the user has interacted with before: `keep` them among the candidates, `drop` them, or decide by the training log (`auto` keeps them
    if at least one interaction in twenty is a repeat, as in a grocery)."""
