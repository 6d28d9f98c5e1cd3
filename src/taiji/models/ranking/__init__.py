"""Rankers: batches, multi-task models, training, and adapters for a user's own ranker.

``from taiji.models.ranking import Ranker, train_ranker`` does not load torch until one of them is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taiji.core.lazy import lazy_names

if TYPE_CHECKING:
    from taiji.models.ranking.ranker import Ranker
    from taiji.models.ranking.train import train_ranker

__all__ = ["Ranker", "train_ranker"]

__getattr__ = lazy_names(__name__, {"Ranker": "ranker", "train_ranker": "train"})
