"""Rankers: ranking models and their input fields, training, export, and adapters for external rankers.

``import taiji.models.ranking`` does not load torch. Torch is loaded when ``Ranker`` or ``train_ranker`` is first
imported from the package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taiji.core.lazy import lazy_names

if TYPE_CHECKING:
    from taiji.models.ranking.ranker import Ranker
    from taiji.models.ranking.train import train_ranker

__all__ = ["Ranker", "train_ranker"]

__getattr__ = lazy_names(__name__, {"Ranker": "ranker", "train_ranker": "train"})
