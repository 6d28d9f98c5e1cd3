"""The ranker: batches, multi-task model, training, and adapters for a user's own ranker.

``from taiji.models.ranking import Ranker, train_ranker`` works without loading torch until one of them is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taiji.models.ranking.ranker import Ranker
    from taiji.models.ranking.train import train_ranker

__all__ = ["Ranker", "train_ranker"]


def __getattr__(name: str) -> Any:
    if name == "Ranker":
        from taiji.models.ranking.ranker import Ranker

        return Ranker
    if name == "train_ranker":
        from taiji.models.ranking.train import train_ranker

        return train_ranker
    raise AttributeError(name)
